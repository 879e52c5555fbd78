"""The bandwidth of a clip: the highest frequency at which its mean spectrum is above a level below its peak.

The definition, with 512 samples and -50 dB, is the one by which recordings were chosen for Hi-Fi TTS (Bakhturina et
al., "Hi-Fi Multi-Speaker English TTS Dataset", Interspeech 2021), and that NeMo's data processors have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pipeline.signal_config import BandwidthConfig

WINDOW = 512
"""Samples of a spectrum: at 44.1 kHz a value is one of a grid of 86 Hz."""
_TURNS = 2 * math.pi * np.outer(np.arange(WINDOW) / WINDOW, np.arange(4))
_TAPER = (np.cos(_TURNS) @ [0.35875, -0.48829, 0.14128, -0.01168]).astype(np.float32)
"""The Blackman-Harris window (Harris, 1978): what leaks into other frequencies is 92 dB below a tone."""
SILENT = 1e-16
"""Power below which there is no sound, full scale being 1: rounding of float32 alone."""


class Bandwidth:
    """The column `bandwidth`, in Hz; null for silence."""

    sample_rate: int | None = None
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, made_by: Mapping[str, Any]) -> None:
        self._ratio = 10 ** (made_by["threshold_db"] / 10)

    @staticmethod
    def describe(config: BandwidthConfig) -> dict[str, Any]:
        return {"threshold_db": config.threshold_db}

    def start(self, sample_rate: int) -> MeanSpectrum:
        return MeanSpectrum(sample_rate, self._ratio)


class MeanSpectrum:
    """The mean power spectrum of a clip, of frames that follow one another."""

    def __init__(self, sample_rate: int, ratio: float) -> None:
        self._sample_rate = sample_rate
        self._ratio = ratio
        self._rest = np.empty(0, np.float32)
        self._power = np.zeros(WINDOW // 2 + 1)
        self._frames = 0

    def add(self, samples: np.ndarray) -> None:
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // WINDOW * WINDOW
        self._rest = joined[whole:]
        self._add_frames(joined[:whole].reshape(-1, WINDOW))

    def finish(self) -> dict[str, float | str | None]:
        if not self._frames:
            self._add_frames(np.pad(self._rest, (0, WINDOW - len(self._rest)))[None])
        peak = self._power.max()
        if peak <= SILENT * self._frames * float(_TAPER.sum()) ** 2:
            return {"bandwidth": None}
        highest = int(np.flatnonzero(self._power > peak * self._ratio)[-1])
        return {"bandwidth": highest * self._sample_rate / WINDOW}

    def _add_frames(self, frames: np.ndarray) -> None:
        spectra = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * _TAPER)
        self._power += np.square(np.abs(spectra)).sum(axis=0, dtype=np.float64)
        self._frames += len(frames)
