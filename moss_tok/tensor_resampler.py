"""Sample-rate conversion of a tensor on its own device, with the bits of `moss_tok.audio.resample`."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tok.audio.resample import MAX_SAMPLE, SAMPLE_UNIT, TAP_UNIT, FilterBank, filter_bank, resampled_length


def resample_tensor(waveform: Tensor, orig_rate: int, new_rate: int) -> Tensor:
    """Convert a (channels, samples) float32 waveform from `orig_rate` to `new_rate` (Hz), where it lies.

    Gives (channels, `resampled_length`) values: those of `torchaudio.functional.resample` with its defaults, within
    1e-6 of full scale, and bit for bit those of `resample`, on any device: its sums are exact in float64.

    Raises:
        ValueError: the waveform is not two-dimensional float32, or a rate is below 1.
    """
    if waveform.dim() != 2 or waveform.dtype != torch.float32:
        raise ValueError(
            f"a waveform must be float32 of shape (channels, samples), got {waveform.dtype} of {tuple(waveform.shape)}"
        )
    if min(orig_rate, new_rate) < 1:
        raise ValueError(f"rates must be at least 1, got {orig_rate} and {new_rate}")
    channels, samples = waveform.shape
    if orig_rate == new_rate or samples == 0:
        return waveform
    divisor = math.gcd(orig_rate, new_rate)
    orig, new = orig_rate // divisor, new_rate // divisor
    bank = filter_bank(orig, new)
    length = resampled_length(samples, orig_rate, new_rate)
    rows = -(-length // bank.row_out)
    missing = rows * bank.row_in + bank.lookahead - samples
    padded = F.pad(waveform, (bank.lookback, max(0, missing)))
    scales = _scales(padded, bank, rows)
    units = torch.round(padded / SAMPLE_UNIT).double() if scales is None else None
    sums = torch.empty(channels, rows, bank.row_out, dtype=torch.float64, device=waveform.device)
    for (first, last, start, _), taps in zip(bank.tiles, _taps_on(orig, new, waveform.device), strict=True):
        source = padded if units is None else units
        windows = source[:, bank.lookback + start :].unfold(1, taps.shape[0], bank.row_in)[:, :rows]
        if scales is not None:
            windows = torch.round(windows / (SAMPLE_UNIT * scales)).double()
        sums[:, :, first:last] = windows @ taps
    sums *= SAMPLE_UNIT * TAP_UNIT if scales is None else SAMPLE_UNIT * TAP_UNIT * scales.double()
    return sums.float().reshape(channels, -1)[:, :length]


def _scales(padded: Tensor, bank: FilterBank, rows: int) -> Tensor | None:
    """The power of two by which each row (channels, rows, 1) is scaled down, or None if no row is too loud."""
    loudness = padded.abs()
    if loudness.max() <= MAX_SAMPLE:
        return None
    peaks = loudness.unfold(1, bank.lookback + bank.row_in + bank.lookahead, bank.row_in)[:, :rows].amax(dim=2)
    exponents = torch.frexp(peaks).exponent - 2
    loud = (peaks > MAX_SAMPLE) & peaks.isfinite()
    return torch.where(loud, torch.exp2(exponents.float()), torch.ones_like(peaks))[:, :, None]


@lru_cache(maxsize=8)
def _taps_on(orig: int, new: int, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(taps).to(device) for _, _, _, taps in filter_bank(orig, new).tiles)
