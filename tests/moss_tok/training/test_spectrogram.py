from __future__ import annotations

import pytest
import torch

from moss_tok.training.spectrogram import spectrogram


def test_magnitudes_are_those_of_torch(sound):
    window = torch.hann_window(768).sqrt()
    theirs = torch.stft(sound[:3], 768, 192, window=window, return_complex=True).abs().transpose(1, 2)
    assert torch.allclose(spectrogram(sound[:3], 768), theirs, atol=1e-5)


@pytest.mark.parametrize(("samples", "window"), [(75, 16), (76, 12), (50, 48)])
def test_the_backward_pass_is_the_derivative(samples, window):
    waveforms = torch.randn(2, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: spectrogram(x, window), waveforms.requires_grad_(True))
