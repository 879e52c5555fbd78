"""The embedded codec: made by its script, small, and with codes that say something about the audio."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "moss_tok" / "models" / "cat-tiny"


def test_the_script_makes_the_same_bytes(tmp_path):
    runpy.run_path(str(ROOT / "scripts" / "make_cat_tiny.py"))["main"](tmp_path)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_it_has_the_shape_of_the_release_at_a_thousandth_of_its_size(cat_tiny):
    parameters = sum(parameter.numel() for parameter in cat_tiny.parameters())
    assert 1e6 < parameters < 3e6
    assert (FOLDER / "model.safetensors").stat().st_size < 8e6
    assert (cat_tiny.sampling_rate, cat_tiny.downsample_rate, cat_tiny.number_channels) == (24000, 1920, 1)
    assert (cat_tiny.num_quantizers, cat_tiny.codebook_size, cat_tiny.frame_rate) == (32, 1024, 12.5)
    assert [stage.config.context for stage in cat_tiny.encoder.stages] == [1000, 500, 250, 125]


@pytest.mark.slow
def test_codes_of_real_audio_spread_over_every_codebook(cat_tiny, real_clips):
    """At least 7 of 10 bits of entropy in each layer: a test that compares codes can fail."""
    output = cat_tiny.batch_encode(real_clips)
    lengths = output.audio_codes_lengths.tolist()
    codes = torch.cat([output.audio_codes[:, index, :length] for index, length in enumerate(lengths)], 1)
    for layer in codes:
        share = torch.bincount(layer, minlength=1024).float() / layer.numel()
        share = share[share > 0]
        assert -(share * share.log2()).sum() > 7
        assert share.max() < 0.1


def test_decoded_sound_is_finite_and_in_range(cat_tiny, real_clips):
    audio = cat_tiny.decode(cat_tiny.encode(real_clips[0]).audio_codes).audio
    assert torch.isfinite(audio).all()
    assert 0.005 < audio.std() < 0.5
    assert audio.abs().max() < 2
