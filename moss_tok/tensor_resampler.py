"""Sample-rate conversion of a tensor on its own device, with the values of `moss_tok.audio.resample` and torchaudio."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tok.audio.resample import filter_bank, resampled_length
from moss_tok.precision import exact_float32


def resample_tensor(waveform: Tensor, orig_rate: int, new_rate: int) -> Tensor:
    """Convert a (channels, samples) float32 waveform from `orig_rate` to `new_rate` (Hz), where it lies.

    Gives (channels, `resampled_length`) values: those of `torchaudio.functional.resample` with its defaults, within
    1e-6 of full scale. The same products as `resample` through the device's own kernels: equal bits are promised on
    the CPU alone, and there by `resample`.

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
    output = waveform.new_empty(channels, rows, bank.row_out)
    with exact_float32(waveform.device):
        for (first, last, start, _), taps in zip(bank.tiles, _taps_on(orig, new, waveform.device), strict=True):
            windows = padded[:, bank.lookback + start :].unfold(1, taps.shape[0], bank.row_in)[:, :rows]
            output[:, :, first:last] = windows @ taps
    return output.reshape(channels, -1)[:, :length]


@lru_cache(maxsize=8)
def _taps_on(orig: int, new: int, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(taps).to(device) for _, _, _, taps in filter_bank(orig, new).tiles)
