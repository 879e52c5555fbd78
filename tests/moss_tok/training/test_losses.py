from __future__ import annotations

import pytest
import torch

from moss_tok.training.losses import SCALES, THIRDS, distances, mel_filters, third_octaves
from tests.moss_tok.training.conftest import voices


def test_a_clip_is_at_no_distance_from_itself(sound):
    found = distances(sound[:4], sound[:4], 24000, torch.ones(4))
    assert max(found.log_mel, found.mel, found.magnitude) == 0
    assert found.envelope < 0.02
    assert found.waveform < 0.01


@pytest.mark.slow
def test_every_distance_grows_with_noise(sound):
    noise = torch.randn(sound.shape, generator=torch.Generator().manual_seed(0))
    near, far = (distances(sound + level * noise, sound, 24000, torch.ones(len(sound))) for level in (0.01, 0.1))
    for name in ("log_mel", "mel", "magnitude", "envelope", "waveform"):
        assert getattr(near, name) < getattr(far, name), name


def test_clips_of_few_codes_need_no_waveform(sound):
    shifted = torch.cat([-sound[:2], sound[2:4]])
    assert distances(shifted, sound[:4], 24000, torch.tensor([1.0, 1, 0, 0])).waveform > 1.5
    assert distances(shifted, sound[:4], 24000, torch.tensor([0.0, 0, 1, 1])).waveform < 0.01


def test_filters_are_triangles_of_unit_area():
    for bands, seconds in SCALES:
        window = round(seconds * 24000)
        filters = mel_filters(24000, window, bands)
        assert filters.shape == (window // 2 + 1, bands)
        wide = filters[:, bands // 2 :]
        assert torch.allclose(wide.sum(0) * 24000 / window, torch.ones(wide.shape[1]), atol=0.1)
        assert filters[int(8000 * window / 24000) + 1 :].max() == 0


def test_thirds_of_an_octave_are_those_of_stoi():
    """pystoi has them at 10 kHz with 512 bins; here a tone falls into the same band."""
    from pystoi.utils import thirdoct

    theirs, _ = thirdoct(10000, 512, THIRDS, 150)
    ours = third_octaves(10000, 512)
    assert ours.shape == (257, THIRDS)
    # pystoi takes the nearest bin as an edge: a bin at an edge may fall to either side.
    assert (ours.T.numpy() != theirs).sum() <= 2 * THIRDS
    assert ours.sum(1).max() == 1


def test_silence_does_not_outweigh_speech(sound):
    """The gradient of a clip that is silent but for -90 dB is at most a few times that of a loud one."""
    loud, noise = sound[:1], torch.randn(1, sound.shape[1], generator=torch.Generator().manual_seed(0))
    norms = []
    for original in (loud, 3e-5 * noise):
        decoded = (original + 3e-5 * noise.flip(1)).requires_grad_(True)
        distances(decoded, original, 24000, torch.ones(1)).log_mel.backward()
        norms.append(float(decoded.grad.norm()))
    assert norms[1] < 5 * norms[0]


def test_gradients_are_finite_for_silence():
    silence = torch.zeros(2, 16 * 1920)
    decoded = silence.clone().requires_grad_(True)
    found = distances(decoded, silence, 24000, torch.ones(2))
    (found.log_mel + found.mel + found.magnitude + found.envelope + found.waveform).backward()
    assert torch.isfinite(decoded.grad).all()
    assert voices(1, 1920, 0).shape == (1, 1920)
