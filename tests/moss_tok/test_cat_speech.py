"""The trained codec in the package: it fits, it says whose it is, and it gives speech back that it never heard."""

from __future__ import annotations

import itertools

import pytest
import soundfile
import torch

from moss_tok import MossAudioTokenizerModel
from moss_tok.audio.resample import resample
from moss_tok.embedded import EMBEDDED_FOLDER, EMBEDDED_LICENSES
from moss_tok.training.losses import distances
from moss_tok.training.sources import SOURCES
from tests.support import CORPUS

FOLDER = EMBEDDED_FOLDER / "cat-speech"
DEPTHS = (1, 2, 4, 8, 16, 32)


@pytest.fixture(scope="module")
def codec() -> MossAudioTokenizerModel:
    return MossAudioTokenizerModel.from_pretrained("cat-speech")


@pytest.fixture(scope="module")
def speech() -> list[torch.Tensor]:
    """LibriVox, which is no part of the training data."""
    paths = sorted((CORPUS / "folder" / "librivox").glob("*.wav"))
    clips = [soundfile.read(path, dtype="float32")[0][None] for path in paths]
    return [torch.from_numpy(resample(clip, 16000, 24000)[0]) for clip in clips]


def test_it_is_small_and_says_where_it_comes_from(codec):
    assert (FOLDER / "model.safetensors").stat().st_size <= 12_000_000
    assert codec.trained
    text = (FOLDER / "LICENSE.md").read_text()
    for source in SOURCES:
        assert source.licence in text, source.name
        assert source.attribution.split(",")[0].split(" by ")[-1] in text, source.name
    assert EMBEDDED_LICENSES["cat-speech"].startswith("CC-BY-SA-3.0")


@pytest.mark.slow
def test_unheard_speech_comes_back_and_better_with_more_layers(codec, speech):
    codes = codec.batch_encode(speech)
    found = {}
    for depth in DEPTHS:
        decoded = codec.batch_decode(
            [codes.audio_codes[:depth, i, :n] for i, n in enumerate(codes.audio_codes_lengths.tolist())]
        )
        pairs = [(decoded.audio[i, :1, : len(clip)], clip[None]) for i, clip in enumerate(speech)]
        each = [distances(ours, theirs, 24000, torch.ones(1)) for ours, theirs in pairs]
        found[depth] = [float(sum(getattr(x, name) for x in each)) / len(each) for name in ("log_mel", "envelope")]
    for fewer, more in itertools.pairwise(DEPTHS):
        assert found[more][0] < found[fewer][0], (fewer, more)
    assert found[32][0] < 0.8
    assert found[32][1] < 0.06
    assert found[32][1] < found[8][1] < found[1][1]


def test_codes_are_spread_over_every_codebook(codec, speech):
    output = codec.batch_encode(speech)
    for layer in output.audio_codes:
        codes = torch.cat([row[:n] for row, n in zip(layer, output.audio_codes_lengths.tolist(), strict=True)])
        assert codes.unique().numel() > 0.5 * len(codes)


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 24000 * 12 + 7])
def test_every_length_works(codec, speech, samples):
    clip = torch.cat(speech)[:samples]
    codes = codec.encode(clip).audio_codes
    assert codes.shape[2] == -(-samples // 1920)
    audio = codec.decode(codes).audio
    assert torch.isfinite(audio).all()
    assert audio.abs().max() < 2


def test_sound_far_into_a_clip_is_as_good_as_at_its_start(codec, speech):
    long = torch.cat([*speech, *speech, *speech])
    audio = codec.decode(codec.encode(long).audio_codes).audio[0, :, : len(long)]
    third = len(long) // 3
    first, last = (
        distances(audio[:, part], long[None, part], 24000, torch.ones(1))
        for part in (slice(0, third), slice(2 * third, 3 * third))
    )
    assert last.log_mel < 1.05 * first.log_mel
