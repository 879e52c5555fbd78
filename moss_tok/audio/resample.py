"""Sample-rate conversion, whole or in blocks, with the same bits on every machine, in any number of threads.

The values are those of torchaudio.functional.resample within float32 rounding. A sum of products has other bits in
another order, and every BLAS, SIMD width and number of threads adds in an order of its own. So the sums here are made
exact: samples are rounded to units of 2^-24 and filter taps to units of 2^-25, both are held as whole numbers in
float64, and no sum of products of samples up to 4 leaves the 53 bits in which float64 counts exactly. Every order,
with or without fused operations, then gives the same number, which is rounded once, to float32. Samples of integer
formats up to 24 bits are such units already; others move by 3e-8 of full scale at most.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
Exact = NDArray[np.float64]

SAMPLE_UNIT = 2.0**-24
TAP_UNIT = 2.0**-25
MAX_SAMPLE = 4.0  # of what fits; louder rows are scaled down by a power of two, and back
MAX_GAIN = 4.0  # the sum of the taps of one output, without signs: MAX_SAMPLE * MAX_GAIN / units = 2^53

_LOWPASS_ZEROS = 6  # torchaudio.functional.resample's defaults: lowpass_filter_width, rolloff, Hann window
_ROLLOFF = 0.99
_OUTPUTS = 8  # outputs per matrix are a multiple of this, the width of the widest SIMD registers
_ROW_OUTPUTS, _ROW_INPUTS = 48, 32  # of a row, at least: the windows of consecutive rows must not overlap
_BLOCK_OUTPUTS = 16384  # outputs of one product, about: what fits the second cache
_ALONE = 2**18  # products of a matrix product that OpenBLAS leaves to one thread: more would be split, to no gain
_EXACT_FLOAT32 = 2**24


@dataclass(frozen=True, slots=True)
class FilterBank:
    """The polyphase filters of one rate pair, as dense matrices over tiles of consecutive outputs.

    A row of `row_in` input samples gives `row_out` output samples. Tile (first, last, start, taps) computes the
    outputs [first, last) of a row as `input[start : start + len(taps)] @ taps`, `start` counted from the row's first
    input (it can be negative: the filter looks back); taps count units of TAP_UNIT. `rows` such rows are computed at
    a time.
    """

    row_in: int
    row_out: int
    rows: int
    lookback: int
    lookahead: int
    tiles: tuple[tuple[int, int, int, Exact], ...]


def _taps(orig: int, new: int, phase: NDArray[np.int64], offset: NDArray[np.int64]) -> Exact:
    """Hann-windowed sinc at input `offset` from the start of the period for output `phase` (broadcast together), in
    units of TAP_UNIT.

    The formula is that of torchaudio.functional.resample (J. O. Smith, "Digital Audio Resampling"), which computes
    times in float32. The rounding of the times is part of its values (up to 8e-6 of full scale), so it is repeated
    here.
    """
    cutoff = min(orig, new) * _ROLLOFF
    time = (-phase).astype(np.float32) / np.float32(new) + offset.astype(np.float32) / np.float32(orig)
    time = time * np.float32(cutoff)
    inside = np.abs(time) < _LOWPASS_ZEROS
    angle = np.where(inside, time * np.float32(math.pi), 0).astype(np.float64)
    half = angle.astype(np.float32) / np.float32(_LOWPASS_ZEROS) / np.float32(2)
    sinc = np.divide(_sine(angle), angle, out=np.ones_like(angle), where=angle != 0)
    window = 1 - _sine(half.astype(np.float64)) ** 2
    return np.rint(np.where(inside, sinc * window * (cutoff / orig), 0.0) / TAP_UNIT)


def _sine(x: Exact) -> Exact:
    """sin(x) for |x| up to some tens, within 1e-15, from products and sums alone, because numpy's sine differs between
    CPUs."""
    turns = np.rint(x / math.pi)
    rest = x - turns * 3.140625 - turns * (math.pi - 3.140625)  # the first product is exact
    square = rest * rest
    term = total = rest
    for power in range(3, 25, 2):
        term = term * square / -(power * (power - 1))
        total = total + term
    return np.where(turns % 2 == 0, total, -total)


@lru_cache(maxsize=8)  # a bank is some KB for common pairs; coprime rates need up to 200 MB
def filter_bank(orig: int, new: int) -> FilterBank:
    """Filters from `orig` to `new`, which have no common divisor."""
    width = math.ceil(_LOWPASS_ZEROS * orig / (min(orig, new) * _ROLLOFF))
    row_out = math.lcm(new, _OUTPUTS)
    row_out *= max(1, _ROW_OUTPUTS // row_out, -(-_ROW_INPUTS * new // (orig * row_out)))
    row_in = row_out // new * orig
    num_tiles = max(1, row_out // _tile(orig, new, row_out))
    edges = [row_out // _OUTPUTS * i // num_tiles * _OUTPUTS for i in range(num_tiles + 1)]
    tiles = []
    for first, last in itertools.pairwise(edges):
        period, phase = np.divmod(np.arange(first, last), new)
        centre = period * orig + phase * orig // new
        start = int(centre[0]) - width
        stop = int(centre[-1]) + width + 2
        offset = np.arange(start, stop)[:, None] - (period * orig)[None, :]
        taps = _taps(orig, new, phase[None, :], offset)
        used = np.flatnonzero(taps.any(axis=1))
        start, taps = start + int(used[0]), np.ascontiguousarray(taps[used[0] : used[-1] + 1])
        if np.abs(taps).sum(axis=0).max() * TAP_UNIT > MAX_GAIN:
            raise ArithmeticError(f"the filters from {orig} to {new} have a gain above {MAX_GAIN}")
        tiles.append((first, last, start, taps))
    return FilterBank(
        row_in=row_in,
        row_out=row_out,
        rows=max(1, min(_BLOCK_OUTPUTS // row_out, _ALONE // max(taps.size for *_, taps in tiles))),
        lookback=max(0, -tiles[0][2]),
        lookahead=max(0, tiles[-1][2] + len(tiles[-1][3]) - row_in),
        tiles=tuple(tiles),
    )


def _tile(orig: int, new: int, row_out: int) -> int:
    """About so many outputs of a matrix. Fewer make products too small; with more of them, more taps are zero
    (measured)."""
    if row_out > 2048:
        return 32
    return 16 if orig <= 2 * new else 8


def resampled_length(num_samples: int, orig_rate: int, new_rate: int) -> int:
    """Samples that `num_samples` at `orig_rate` become at `new_rate`: ceil(num_samples · new_rate / orig_rate).

    torchaudio takes the ceiling after rounding the quotient to float32, which can drop the last sample,
    and more of them beyond 2^24 outputs. The first is repeated here, to agree; the second is not.
    """
    divisor = math.gcd(orig_rate, new_rate)
    orig, new = orig_rate // divisor, new_rate // divisor
    exact = -(-num_samples * new // orig)
    return exact if exact >= _EXACT_FLOAT32 else int(np.ceil(np.float32(new * num_samples / orig)))


class StreamingResampler:
    """Resamples a waveform that arrives in blocks. The outputs, joined, are `resample` of the whole, bit for bit.

    It holds the samples that the filter looks back on, and less than one period of the two rates (at most a second of
    audio, if they have no large common divisor).

    Args:
        orig_rate, new_rate: sample rates in Hz.
        channels: rows of the waveform.
    """

    def __init__(self, orig_rate: int, new_rate: int, channels: int) -> None:
        for name, value in (("orig_rate", orig_rate), ("new_rate", new_rate), ("channels", channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        divisor = math.gcd(orig_rate, new_rate)
        self.orig_rate, self.new_rate, self.channels = orig_rate, new_rate, channels
        self._bank = None if orig_rate == new_rate else filter_bank(orig_rate // divisor, new_rate // divisor)
        lookback = self._bank.lookback if self._bank else 0
        self._held = np.zeros((channels, lookback), np.float32)
        self._received = 0
        self._emitted = 0
        self._flushed = False

    def push(self, block: Waveform) -> Waveform:
        """Take the next (channels, n) float32 samples. Returns the (channels, m) outputs that they complete.

        Raises:
            ValueError: another shape or dtype, or a push after `flush`.
        """
        if self._flushed:
            raise ValueError("this StreamingResampler was flushed; make a new one for the next clip")
        _check_waveform(block, self.channels)
        self._received += block.shape[1]
        if self._bank is None:
            self._emitted += block.shape[1]
            return block
        self._held = np.concatenate((self._held, block), axis=1)
        return self._drain(self._bank)

    def flush(self) -> Waveform:
        """End the clip. Returns the remaining (channels, m) outputs, with zeros taken for the input after its end."""
        if self._flushed:
            raise ValueError("this StreamingResampler was flushed already")
        self._flushed = True
        remaining = resampled_length(self._received, self.orig_rate, self.new_rate) - self._emitted
        if self._bank is None or remaining <= 0:
            return np.zeros((self.channels, 0), np.float32)
        rows = -(-remaining // self._bank.row_out)
        needed = self._bank.lookback + rows * self._bank.row_in + self._bank.lookahead
        beyond = np.zeros((self.channels, max(0, needed - self._held.shape[1])), np.float32)
        self._held = np.concatenate((self._held, beyond), axis=1)
        return self._drain(self._bank)[:, :remaining]

    def _drain(self, bank: FilterBank) -> Waveform:
        """Compute every row whose inputs are all there, and drop the inputs that no later row needs."""
        rows = max(0, (self._held.shape[1] - bank.lookback - bank.lookahead) // bank.row_in)
        output = np.empty((self.channels, rows, bank.row_out), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # samples of 1e38 and beyond are what they are
            for channel in range(self.channels):
                for first in range(0, rows, bank.rows):
                    samples = self._held[channel, first * bank.row_in :]
                    _resample_rows(bank, samples, output[channel, first : first + bank.rows])
        self._held = self._held[:, rows * bank.row_in :].copy()
        self._emitted += rows * bank.row_out
        return output.reshape(self.channels, -1)


def _resample_rows(bank: FilterBank, samples: Waveform, output: Waveform) -> None:
    """Fill `output` (rows, row_out). `samples` begins `lookback` samples before the first input of the first row."""
    rows = len(output)
    samples = samples[: bank.lookback + rows * bank.row_in + bank.lookahead]
    peak = max(float(samples.max()), -float(samples.min()))
    if not peak <= MAX_SAMPLE and rows > 1:  # how far a row is scaled down must not depend on the rows beside it
        for row in range(rows):
            _resample_rows(bank, samples[row * bank.row_in :], output[row : row + 1])
        return
    scale = 2.0 ** (math.frexp(peak)[1] - 2) if MAX_SAMPLE < peak < math.inf else 1.0
    rounded = samples * np.float32(1 / (SAMPLE_UNIT * scale))  # exact, as is every whole number below 2^24 in float32
    units = np.rint(rounded, out=rounded).astype(np.float64)
    sums = np.empty((rows, bank.row_out))
    item = units.itemsize
    for first, last, start, taps in bank.tiles:
        # numpy's as_strided does the same in ten times the time, which short clips would feel.
        shape, offset = (rows, len(taps)), (bank.lookback + start) * item
        windows = np.ndarray(shape, np.float64, units, offset, (bank.row_in * item, item))
        if bank.row_in < len(taps):
            windows = np.ascontiguousarray(windows)  # a BLAS takes no rows that overlap
        np.matmul(windows, taps, out=sums[:, first:last])
    sums *= SAMPLE_UNIT * TAP_UNIT * scale
    output[:] = sums


def resample(waveform: Waveform, orig_rate: int, new_rate: int) -> Waveform:
    """Convert a (channels, samples) float32 waveform from `orig_rate` to `new_rate` (Hz).

    Gives (channels, `resampled_length`) values: those of `torchaudio.functional.resample` with its defaults, within
    1e-6 of full scale. The bits are the same on every machine, and for any split of the clip over `StreamingResampler`.

    Raises:
        ValueError: the waveform is not two-dimensional float32, or a rate is below 1.
    """
    _check_waveform(waveform, waveform.shape[0] if waveform.ndim == 2 else None)
    if (orig_rate == new_rate and orig_rate > 0) or waveform.shape[0] == 0:
        return waveform
    resampler = StreamingResampler(orig_rate, new_rate, waveform.shape[0])
    body = resampler.push(waveform)
    return np.concatenate((body, resampler.flush()), axis=1)


def _check_waveform(waveform: Waveform, channels: int | None) -> None:
    if waveform.ndim != 2 or waveform.dtype != np.float32 or waveform.shape[0] != channels:
        rows = "channels" if channels is None else channels
        raise ValueError(
            f"a waveform must be float32 of shape ({rows}, samples), got {waveform.dtype} of shape {waveform.shape}"
        )
