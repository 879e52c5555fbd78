"""Sample-rate conversion, whole or in blocks with the same bits, equal to torchaudio's within float32 rounding."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

_LOWPASS_ZEROS = 6  # torchaudio.functional.resample's defaults: lowpass_filter_width, rolloff, Hann window
_ROLLOFF = 0.99
_TILE = 16  # outputs per matrix are a multiple of this, the width of the widest SIMD registers
_BLOCK_OUTPUTS = 8192  # outputs of one aligned block, about
_EXACT_FLOAT32 = 2**24


@dataclass(frozen=True, slots=True)
class FilterBank:
    """The polyphase filters of one rate pair, as dense matrices over tiles of consecutive outputs.

    A row of `row_in` input samples gives `row_out` output samples. Tile (first, last, start, taps) computes the
    outputs [first, last) of a row as `input[start : start + len(taps)] @ taps`, `start` counted from the row's first
    input (it can be negative: the filter looks back). A block is `rows` such rows.
    """

    row_in: int
    row_out: int
    rows: int
    lookback: int
    lookahead: int
    tiles: tuple[tuple[int, int, int, Waveform], ...]


def _taps(orig: int, new: int, phase: NDArray[np.int64], offset: NDArray[np.int64]) -> Waveform:
    """Hann-windowed sinc at input `offset` from the start of the period for output `phase` (broadcast together).

    The formula of torchaudio.functional.resample (J. O. Smith, "Digital Audio Resampling"), which evaluates times in
    float32. Its rounding of the times is part of the values (up to 8e-6 of full scale), so it is repeated here; sine
    and cosine, which differ between processors in float32, are taken in float64.
    """
    cutoff = min(orig, new) * _ROLLOFF
    time = (-phase).astype(np.float32) / np.float32(new) + offset.astype(np.float32) / np.float32(orig)
    time = time * np.float32(cutoff)
    inside = np.abs(time) < _LOWPASS_ZEROS
    angle = (time * np.float32(math.pi)).astype(np.float64)
    half = (time * np.float32(math.pi) / np.float32(_LOWPASS_ZEROS) / np.float32(2)).astype(np.float64)
    sinc = np.divide(np.sin(angle), angle, out=np.ones_like(angle), where=angle != 0)
    return np.where(inside, sinc * np.cos(half) ** 2 * (cutoff / orig), 0.0).astype(np.float32)


@lru_cache(maxsize=8)  # a bank is some KB for common pairs; coprime rates need up to 90 MB
def filter_bank(orig: int, new: int) -> FilterBank:
    """Filters from `orig` to `new`, which have no common divisor."""
    width = math.ceil(_LOWPASS_ZEROS * orig / (min(orig, new) * _ROLLOFF))
    tile = 4 * _TILE if new >= orig else 2 * _TILE
    row_out = math.lcm(new, _TILE)
    row_out *= max(1, tile // row_out)
    row_in = row_out // new * orig
    num_tiles = max(1, row_out // tile)
    edges = [row_out // _TILE * i // num_tiles * _TILE for i in range(num_tiles + 1)]
    tiles = []
    for first, last in itertools.pairwise(edges):
        period, phase = np.divmod(np.arange(first, last), new)
        centre = period * orig + phase * orig // new
        start = int(centre[0]) - width
        stop = int(centre[-1]) + width + 2
        offset = np.arange(start, stop)[:, None] - (period * orig)[None, :]
        tiles.append((first, last, start, _taps(orig, new, phase[None, :], offset)))
    return FilterBank(
        row_in=row_in,
        row_out=row_out,
        rows=max(1, _BLOCK_OUTPUTS // row_out),
        lookback=max(0, -tiles[0][2]),
        lookahead=max(0, tiles[-1][2] + len(tiles[-1][3]) - row_in),
        tiles=tuple(tiles),
    )


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
    """Resamples a waveform that arrives in blocks; the outputs end to end are `resample` of the whole, bit for bit.

    The work is done in blocks aligned to the clip's start, always through matrix products of the same shapes, so
    the bits depend neither on how the input was cut nor on what came along. Holds about 0.4 s of audio (one period
    of the two rates, at most a second, where they have no large common divisor).

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
        """Take the next (channels, n) float32 samples; give the (channels, m) outputs that they complete.

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
        """End the clip: give the (channels, m) outputs that remain, the input taken as zero beyond its end."""
        if self._flushed:
            raise ValueError("this StreamingResampler was flushed already")
        self._flushed = True
        remaining = resampled_length(self._received, self.orig_rate, self.new_rate) - self._emitted
        if self._bank is None or remaining <= 0:
            return np.zeros((self.channels, 0), np.float32)
        blocks = -(-remaining // (self._bank.rows * self._bank.row_out))
        needed = self._bank.lookback + blocks * self._bank.rows * self._bank.row_in + self._bank.lookahead
        beyond = np.zeros((self.channels, max(0, needed - self._held.shape[1])), np.float32)
        self._held = np.concatenate((self._held, beyond), axis=1)
        return self._drain(self._bank)[:, :remaining]

    def _drain(self, bank: FilterBank) -> Waveform:
        """Compute every block whose inputs are all held, and drop the inputs that no later block needs."""
        block_in = bank.rows * bank.row_in
        blocks = max(0, (self._held.shape[1] - bank.lookback - bank.lookahead) // block_in)
        output = np.empty((self.channels, blocks, bank.rows, bank.row_out), np.float32)
        for channel in range(self.channels):
            for block in range(blocks):
                _resample_block(bank, self._held[channel, block * block_in :], output[channel, block])
        self._held = self._held[:, blocks * block_in :].copy()
        self._emitted += blocks * bank.rows * bank.row_out
        return output.reshape(self.channels, -1)


def _resample_block(bank: FilterBank, samples: Waveform, output: Waveform) -> None:
    """Fill `output` (rows, row_out); `samples` begins `lookback` samples before the block's first input."""
    item = samples.itemsize
    for first, last, start, taps in bank.tiles:
        # numpy's as_strided does the same in ten times the time, which short clips would feel.
        shape, offset = (bank.rows, len(taps)), (bank.lookback + start) * item
        windows = np.ndarray(shape, np.float32, samples, offset, (bank.row_in * item, item))
        np.matmul(np.ascontiguousarray(windows), taps, out=output[:, first:last])


def resample(waveform: Waveform, orig_rate: int, new_rate: int) -> Waveform:
    """Convert a (channels, samples) float32 waveform from `orig_rate` to `new_rate` (Hz).

    Gives (channels, `resampled_length`) values: those of `torchaudio.functional.resample` with its defaults, within
    1e-6 of full scale. The bits are the same at every call, and for any split of the clip over `StreamingResampler`.

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
