"""Magnitude spectra with a backward pass of their own: the inverse transform of real signals.

What autograd derives for `torch.stft` transforms complex signals of twice the length, which made a fifth of a
training step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to the power, so that the magnitude has a slope at 0.
EPSILON = 1e-12


def spectrogram(waveforms: Tensor, window: int) -> Tensor:
    """waveforms (B, samples) -> magnitudes (B, frames, window / 2 + 1), hop a quarter of the window, a whole number.

    The window is the root of a Hann window; ends are reflected, as `torch.stft` has it.
    """
    magnitudes: Tensor = _Spectrogram.apply(waveforms, window)  # type: ignore[no-untyped-call]
    return magnitudes


def _shape(window: int, like: Tensor) -> Tensor:
    return torch.hann_window(window, dtype=like.dtype, device=like.device).sqrt()


class _Spectrogram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, waveforms: Tensor, window: int) -> Tensor:
        padded = F.pad(waveforms[:, None], (window // 2, window // 2), mode="reflect")[:, 0]
        spectrum = torch.fft.rfft(padded.unfold(1, window, window // 4) * _shape(window, waveforms))
        magnitudes: Tensor = (spectrum.real.square() + spectrum.imag.square() + EPSILON).sqrt()
        ctx.save_for_backward(spectrum, magnitudes)
        ctx.samples, ctx.window = waveforms.shape[1], window
        return magnitudes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        spectrum, magnitudes = ctx.saved_tensors
        window, samples = ctx.window, ctx.samples
        # In real numbers: a product of complex and real ones is slow.
        directions = torch.view_as_real(spectrum) * (gradients[0] / magnitudes)[..., None]
        # The inverse transform counts these bins twice, for the negative frequencies; the forward one has them once.
        directions[..., 1:-1, :] *= 0.5
        frames = torch.fft.irfft(torch.view_as_complex(directions), window, norm="forward")
        padded = _overlapped(frames * _shape(window, frames), samples + window)
        half = window // 2
        gradient = padded[:, half : half + samples].clone()
        gradient[:, 1 : half + 1] += padded[:, :half].flip(1)
        gradient[:, samples - 1 - half : samples - 1] += padded[:, half + samples :].flip(1)
        return gradient, None


def _overlapped(frames: Tensor, samples: int) -> Tensor:
    """The sum (B, samples) of frames (B, frames, window), each a quarter of the window after the one before."""
    batch, count, window = frames.shape
    quarters = frames.view(batch, count, 4, window // 4)
    summed = frames.new_zeros(batch, count + 3, window // 4)
    for index in range(4):
        summed[:, index : index + count] += quarters[:, :, index]
    return F.pad(summed.view(batch, -1), (0, samples - (count + 3) * (window // 4)))
