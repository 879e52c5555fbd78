"""Mel loss and STFT distance, as in the official evaluation of the MOSS Audio Tokenizer.

For each window w of (2048, 512) samples at 16 kHz: hop w/4, the square root of a periodic Hann window, frames centred,
magnitudes M of the reference and N of the decoded sound. The distance sums over both windows

    mean |log10(max(M, 1e-5)^2) - log10(max(N, 1e-5)^2)| + mean |M - N|.

Mel loss is the same on mel spectra: Slaney's scale and norm, 0 to 8 kHz, 150 and 80 bands.
Source: OpenMOSS/MOSS-Audio-Tokenizer-Eval. Waveforms are float32 tensors (samples,) at 16 kHz.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from pipeline.evaluate.mel import mel_bands

SAMPLE_RATE = 16_000
BANDS = {2048: 150, 512: 80}
"""Mel bands for each window, in samples."""
FLOOR = 1e-5
ROUNDING = 1e-20
"""Of an energy, in float64."""


def mel_loss(reference: Tensor, decoded: Tensor) -> float:
    """0 for equal waveforms; no unit."""
    return _sum_over_windows(reference, decoded, mel=True)


def stft_distance(reference: Tensor, decoded: Tensor) -> float:
    """0 for equal waveforms; no unit."""
    return _sum_over_windows(reference, decoded, mel=False)


def si_sdr(reference: Tensor, decoded: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, of waveforms without their means (Le Roux et al., 2019).

    Infinite where the decoded sound is the reference, up to its level and rounding. Raises ValueError where one of them
    is constant: the ratio has no meaning then.
    """
    target, estimate = (waveform.double() - waveform.double().mean() for waveform in (reference, decoded))
    energy = target.square().sum()
    if energy == 0 or estimate.square().sum() == 0:
        raise ValueError("constant sound has no signal-to-distortion ratio")
    projection = (estimate @ target) / energy * target
    distortion = (estimate - projection).square().sum()
    kept = projection.square().sum()
    return float(10 * torch.log10(kept / distortion)) if distortion > ROUNDING * kept else math.inf


def _sum_over_windows(reference: Tensor, decoded: Tensor, *, mel: bool) -> float:
    return float(sum(_distance(*(_magnitudes(x, window, mel) for x in (reference, decoded))) for window in BANDS))


def _distance(one: Tensor, other: Tensor) -> Tensor:
    logarithms = (magnitudes.clamp(min=FLOOR).square().log10() for magnitudes in (one, other))
    return (next(logarithms) - next(logarithms)).abs().mean() + (one - other).abs().mean()


def _magnitudes(waveform: Tensor, window: int, mel: bool) -> Tensor:
    """(bins or bands, frames). A clip shorter than half a window is reflected as often as it takes."""
    spectrum = torch.stft(
        _padded(waveform, window // 2), window, window // 4, window=_window(window), center=False, return_complex=True
    ).abs()
    return _mel_bands(window).T @ spectrum if mel else spectrum


def _padded(waveform: Tensor, width: int) -> Tensor:
    """`width` samples more on either side, by reflection, as `torch.stft(center=True)` pads, for any length."""
    if waveform.numel() == 0:
        raise ValueError("an empty waveform has no spectrum")
    while width > 0:
        step = min(width, waveform.numel() - 1)
        if step == 0:
            return waveform.expand(1 + 2 * width)
        waveform = torch.nn.functional.pad(waveform[None], (step, step), mode="reflect")[0]
        width -= step
    return waveform


@cache
def _window(size: int) -> Tensor:
    return torch.hann_window(size).sqrt()


@cache
def _mel_bands(window: int) -> Tensor:
    """(bins, bands)."""
    return mel_bands(window // 2 + 1, BANDS[window], SAMPLE_RATE)
