"""Statistics of a waveform that arrives in parts. The results are the same bits at whatever frames it is cut."""

from __future__ import annotations

import math
from decimal import Context, Decimal

import numpy as np
import xxhash

CLIPPING_LEVEL = 0.999
SILENCE_LEVEL = 0.001  # -60 dBFS
_DECIMAL = Context(prec=28)
LOWEST_POWER = 1e-9  # in the loudness rule of the release, so that a silent clip has a level too: -90 dBFS


class AudioStats:
    """Sums over the parts so far. A part is (channels, n) samples, and n is whole frames in all parts but the last."""

    def __init__(self, samples_per_frame: int) -> None:
        self._samples_per_frame = samples_per_frame
        self._hash = xxhash.xxh3_128()
        self._count = 0
        self._clipped = 0
        self._silent = 0
        self._energy = 0.0
        self.num_samples = 0
        """Samples per channel."""
        self.peak = 0.0

    def add(self, part: np.ndarray) -> None:
        magnitude = np.abs(part)
        peak = float(magnitude.max())
        self._hash.update(np.ascontiguousarray(part.T, dtype="<f4").data)  # no copy for one channel
        self._count += part.size
        if peak >= CLIPPING_LEVEL:
            self._clipped += int(np.count_nonzero(magnitude >= CLIPPING_LEVEL))
        self._silent += int(np.count_nonzero(magnitude < SILENCE_LEVEL))
        self._energy = float(np.add.accumulate([self._energy, *_energies(part, self._samples_per_frame)])[-1])
        self.num_samples += part.shape[1]
        self.peak = max(self.peak, peak)

    @property
    def clipping(self) -> float:
        return self._clipped / self._count

    @property
    def silence(self) -> float:
        return self._silent / self._count

    @property
    def rms(self) -> float:
        return math.sqrt(self._energy / self._count)

    @property
    def level_dbfs(self) -> float:
        """Mean power in dB of full scale, defined as in MOSS-TTS: 10 log10(mean(x^2) + 1e-9)."""
        return decibels(self._energy / self._count + LOWEST_POWER)

    @property
    def xxh3(self) -> str:
        """XXH3-128 of the samples so far, as little-endian float32, with the channels of a sample side by side."""
        return str(self._hash.hexdigest())


def decibels(power: float) -> float:
    """10 log10(power), the same bits on every machine. The C library's logarithm is not: it depends on the CPU."""
    return float(_DECIMAL.multiply(10, _DECIMAL.log10(Decimal(power))))


def amplitude(gain_db: float) -> np.float32:
    """The factor 10^(gain_db / 20), the same bits on every machine."""
    factor: np.float32 = np.float32(float(_DECIMAL.power(10, _DECIMAL.divide(Decimal(gain_db), 20))))
    return factor


def _energies(part: np.ndarray, samples_per_frame: int) -> np.ndarray:
    """The sum of squares of each frame. A sum over the whole part would depend on where the parts are cut."""
    channels, num_samples = part.shape
    whole = num_samples // samples_per_frame * samples_per_frame
    squares = np.square(part)
    frames = squares[:, :whole].reshape(channels, -1, samples_per_frame).sum(axis=2)
    rest = squares[:, whole:].sum(axis=1, keepdims=True)
    energies: np.ndarray = np.concatenate([frames, rest], axis=1).sum(axis=0)
    return energies
