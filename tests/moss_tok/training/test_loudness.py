from __future__ import annotations

import pytest
import torch
from pesq import pesq
from torch import Tensor

from moss_tok.training.loudness import critical_bands, loudness, loudness_distance
from moss_tok.training.spectrogram import spectrogram

RATE, WINDOW = 16000, 512


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float(loudness_distance(power(ours), power(theirs), RATE))


def power(x: Tensor) -> Tensor:
    return spectrogram(x, WINDOW).square()


def noise_like(sound: Tensor) -> Tensor:
    return torch.randn(sound.shape, generator=torch.Generator().manual_seed(0)) * sound.std()


def test_a_sound_is_at_no_distance_from_itself(sound):
    assert distance(sound[:2], sound[:2]) < 1e-4


def test_it_ranks_damage_as_pesq_does(sound):
    """Noise and missing frequencies, each at several levels, and PESQ's score of them."""
    clip = sound[:1]
    spectrum = torch.fft.rfft(clip)
    damaged = [clip + level * noise_like(clip) for level in (0.01, 0.05, 0.2, 0.8)]
    for highest in (6000, 3000, 1000):
        kept = torch.arange(spectrum.shape[1]) <= highest * clip.shape[1] / RATE
        damaged.append(torch.fft.irfft(spectrum * kept, clip.shape[1]))
    ours = torch.tensor([distance(x, clip) for x in damaged])
    theirs = torch.tensor([pesq(RATE, clip[0].numpy(), x[0].numpy(), "wb") for x in damaged])
    assert torch.equal(ours[:4].argsort(), torch.arange(4))
    assert torch.equal(ours[4:].argsort(), torch.arange(3))
    assert torch.corrcoef(torch.stack([ours.log(), theirs]))[0, 1] < -0.8


def test_what_is_added_counts_more_than_what_is_missing(sound):
    noise = 0.3 * noise_like(sound)
    assert distance(sound + noise, sound) > 1.2 * distance(sound, sound + noise)


def test_a_difference_of_less_than_a_quarter_of_the_loudness_is_hidden(sound):
    noise = noise_like(sound[:2])  # far above the threshold in all bands
    assert distance(1.3 * noise, noise) < 0.01 < 0.1 < distance(2.5 * noise, noise)


def test_ten_decibels_multiply_loudness_by_the_same_number_everywhere_far_above_the_threshold():
    threshold = torch.tensor([0.3, 10.0])
    assert loudness(threshold, threshold).abs().max() == 0
    louder, loud = (loudness(threshold * 10**level, threshold) for level in (9.0, 8.0))
    assert (louder / loud).tolist() == pytest.approx([10**0.23] * 2, rel=0.01)


def test_bands_are_evenly_spaced_for_the_ear_which_hears_best_at_three_kilohertz():
    filters, threshold = critical_bands(RATE, WINDOW)
    hz = torch.arange(WINDOW // 2 + 1) * RATE / WINDOW
    centres = (filters * hz[:, None]).sum(0) / filters.sum(0)
    assert (centres.diff() > 0).all()
    assert float(centres[threshold.argmin()]) == pytest.approx(3300, rel=0.1)
    # Traunmueller (1990): 8.5 Bark lie below 1 kHz and 13 below 2 kHz.
    assert int((centres < 1000).sum()) == pytest.approx(2 * 8.5 - 1, abs=2)
    assert int((centres < 2000).sum()) == pytest.approx(2 * 13.0 - 1, abs=2)


def test_silence_is_nearly_equal_to_silence_and_has_finite_gradients(sound):
    silence = torch.zeros_like(sound[:1])
    decoded = (1e-5 * noise_like(sound[:1])).requires_grad_(True)
    distant = loudness_distance(power(decoded), power(silence), RATE)
    distant.backward()
    assert float(distant.detach()) < 0.1
    assert torch.isfinite(decoded.grad).all()
