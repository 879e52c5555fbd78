"""The measure of what a precision changes."""

from __future__ import annotations

import math

import pytest
import torch

from moss_tok import MossAudioTokenizerModel
from moss_tok.agreement import agreement, mel_bands, mel_distance, stft_distance

pytestmark = pytest.mark.filterwarnings("ignore::moss_tok.UntrainedModelWarning")


def test_float32_agrees_with_itself(real_clips):
    result = agreement("cat-tiny", "float32", real_clips[:3])
    assert result.layers == (1.0,) * 32
    assert result.frames_equal == 1
    assert result.reference == result.other
    assert f"float32 by {MossAudioTokenizerModel.from_pretrained('cat-tiny').numerics}\n" in str(result)


def test_bfloat16_differs_in_some_codes_and_more_in_later_layers(real_clips):
    """A differing code changes the residual that all later layers see, so agreement falls from layer to layer."""
    result = agreement("cat-tiny", "bfloat16", real_clips[:6])
    assert result.clips == 6
    assert result.frames == sum(math.ceil(clip.numel() / 1920) for clip in real_clips[:6])
    assert 0.5 < result.layers[0] < 1
    assert sum(result.layers[:8]) > sum(result.layers[-8:])
    assert result.frames_equal <= min(result.layers)
    assert abs(result.other.mel - result.reference.mel) < 0.1 * result.reference.mel


def test_distances_of_known_changes():
    """Ten times the amplitude is 1 in log10 of every magnitude; silence and itself are 0 apart."""
    noise = torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0)) / 10
    assert mel_distance(noise, noise, 24_000) == 0
    assert mel_distance(noise, 10 * noise, 24_000) == pytest.approx(1, abs=1e-3)
    assert stft_distance(noise, 10 * noise) == pytest.approx(1, abs=1e-3)
    assert stft_distance(torch.zeros(1, 100), torch.zeros(1, 100)) == 0


def test_mel_bands_are_triangles_over_the_whole_range():
    bands = mel_bands(24_000, 1024, 80)
    assert bands.shape == (80, 513)
    assert bands.min() == 0
    assert 0.5 < bands.max() <= 1
    centres = bands.argmax(1)
    assert (centres[1:] >= centres[:-1]).all()
    peak_hz = float(centres[-1]) * 24_000 / 1024
    assert 11_000 < peak_hz < 12_000
