"""Clips of any length travel in parts, in bounded memory, to the codes and figures that they would have had whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from moss_tok import MossAudioTokenizerModel, audio
from pipeline.codecs.moss_codec import MossCodec
from pipeline.config import Config, LoudnessConfig, PrepareConfig, parse_config
from pipeline.items import Clip, ClipEnd, ClipPart, Origin, RawClip, Reject
from pipeline.shard import chunks
from pipeline.shard.chunks import Resumption, prepare_shard
from pipeline.steps import prepare
from pipeline.steps.encode import Encoder
from pipeline.steps.plan import plan_shards
from pipeline.steps.prepare import Target, prepare_clip
from tests.support import info_of, rows, tokenize_in_process

MONO = Target(sample_rate=24_000, channels=1, samples_per_frame=1920)
STEREO = Target(sample_rate=48_000, channels=2, samples_per_frame=3840)
RATE = 8_000


def sweep(seconds: float, rate: int = RATE, channels: int = 1, amplitude: float = 0.3) -> np.ndarray:
    """A tone that wanders, with pauses: no two stretches of it are alike. (samples, channels)"""
    time = np.arange(round(seconds * rate)) / rate
    sound = np.sin(2 * np.pi * (200 + time % 61) * time) * (time % 7 < 5)
    return (amplitude * sound[:, None] * np.arange(1, channels + 1) / channels).astype(np.float32)


def flac(samples: np.ndarray, rate: int = RATE) -> bytes:
    sink = io.BytesIO()
    sf.write(sink, samples, rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def raw_of(data: bytes) -> RawClip:
    return RawClip(origin=Origin(index=0, source="a.flac", key="a"), name="a.flac", data=data)


def prepared(data: bytes, target: Target = MONO, **options: Any) -> list[Any]:
    return list(prepare_clip(raw_of(data), PrepareConfig(**options), target))


@pytest.fixture
def parts_of_ten_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "PART_FRAMES", 10)


@pytest.mark.parametrize(("target", "channels"), [(MONO, 2), (STEREO, 1), (STEREO, 2)])
@pytest.mark.parametrize("loudness", [None, LoudnessConfig()])
def test_the_parts_end_to_end_are_the_whole_and_so_are_its_figures(
    monkeypatch: pytest.MonkeyPatch, target: Target, channels: int, loudness: LoudnessConfig | None
) -> None:
    data = flac(sweep(23.4, 11_025, channels), 11_025)
    (whole,) = prepared(data, target, loudness=loudness)
    monkeypatch.setattr(prepare, "PART_FRAMES", 10)
    *parts, end = prepared(data, target, loudness=loudness)
    assert isinstance(whole, Clip)
    assert isinstance(end, ClipEnd)
    assert len(parts) > 20
    assert all(part.waveform.shape[1] == 10 * target.samples_per_frame for part in parts[:-1])
    assert [part.start for part in parts] == [10 * target.samples_per_frame * index for index in range(len(parts))]
    assert np.array_equal(np.concatenate([part.waveform for part in parts], axis=1), whole.waveform)
    assert end.info == whole.info


@pytest.mark.parametrize(("frames", "parts"), [(10, 0), (11, 2), (20, 2), (21, 3)])
@pytest.mark.usefixtures("parts_of_ten_frames")
def test_a_clip_that_fits_one_part_is_no_long_one(frames: int, parts: int) -> None:
    *found, last = prepared(flac(np.full((frames * 640, 1), 0.25, np.float32)))
    assert len(found) == parts
    assert isinstance(last, ClipEnd if parts else Clip)


@pytest.mark.usefixtures("parts_of_ten_frames")
def test_a_defect_that_shows_late_rejects_the_whole_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = sweep(30)
    samples[-100] = np.nan
    sink = io.BytesIO()
    sf.write(sink, samples, RATE, format="WAV", subtype="FLOAT")
    *parts, last = prepared(sink.getvalue())
    assert len(parts) > 20
    assert all(isinstance(part, ClipPart) for part in parts)
    assert isinstance(last, Reject)
    assert last.reason == "non_finite"
    (*_, last) = prepared(flac(sweep(30)), max_seconds=29.0)
    assert last.reason == "too_long"
    (*_, last) = prepared(flac(sweep(30)), min_seconds=31.0)
    assert last.reason == "too_short"


@pytest.mark.parametrize(
    ("amplitude", "gain"),
    [
        (0.1 * 2**0.5, 0.0),
        (0.1 * 2**0.5 * 10 ** (2 / 20), -2.0),
        (0.1 * 2**0.5 * 10 ** (-2 / 20), 2.0),
        (0.9, -3.0),
        (0.001, 3.0),
        (0.0, 3.0),
    ],
)
def test_loudness_is_brought_to_the_target_as_far_as_is_allowed(amplitude: float, gain: float) -> None:
    time = np.arange(24_000) / 24_000
    tone = (amplitude * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    sink = io.BytesIO()
    sf.write(sink, tone, 24_000, format="WAV", subtype="FLOAT")
    (plain,) = prepared(sink.getvalue())
    (clip,) = prepared(sink.getvalue(), loudness=LoudnessConfig())
    assert plain.info.gain_db == 0.0
    assert clip.info.gain_db == pytest.approx(gain, abs=1e-3)
    assert clip.waveform == pytest.approx(tone[None] * 10 ** (gain / 20), abs=1e-4)
    assert clip.info.rms == pytest.approx(plain.info.rms * 10 ** (gain / 20), rel=1e-3)
    assert clip.info.peak == np.abs(clip.waveform).max()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes between two short clips, a long one with a bad end, and one more."""
    folder = tmp_path_factory.mktemp("long")
    long = flac(sweep(1200))
    (folder / "a.flac").write_bytes(flac(sweep(2)))
    (folder / "b.flac").write_bytes(long)
    (folder / "c.wav").write_bytes(wav_bad_at_the_end(sweep(400)))
    (folder / "d.flac").write_bytes(flac(sweep(3)))
    return folder


def wav_bad_at_the_end(samples: np.ndarray) -> bytes:
    sink = io.BytesIO()
    samples[-1] = np.inf
    sf.write(sink, samples, RATE, format="WAV", subtype="FLOAT")
    return sink.getvalue()


def config_of(folder: Path, output: Path, **batch: int) -> Config:
    return parse_config(
        {
            "input": {"splits": {"train": str(folder)}},
            "output": {"uri": str(output)},
            "model": {"name": "cat-tiny", "num_quantizers": 4},
            "batch": batch,
        }
    )


@pytest.mark.slow
def test_a_long_clip_beside_short_ones_has_the_codes_of_the_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is left of the one that turned out to be damaged, though most of it had codes already."""
    monkeypatch.setattr(prepare, "PART_FRAMES", 500)
    tokenize_in_process(config_of(folder, tmp_path / "out", max_frames=300))
    found = rows(tmp_path / "out")
    assert [Path(row["source"]).name for row in found] == ["a.flac", "b.flac", "d.flac"]
    assert [Path(row["source"]).name for row in rows(tmp_path / "out", "rejects")] == ["c.wav"]
    row = found[1]
    _, decoded = audio.decode((folder / "b.flac").read_bytes())
    waveform = audio.resample(decoded, RATE, 24_000)
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")
    (whole,) = Encoder(MossCodec(model), 4, max_frames=15_001).encode([Clip(info_of(1, waveform.shape[1]), waveform)])
    assert row["num_frames"] == whole.codes.shape[1] == 15_000
    assert all(row[f"codes_{layer:02d}"] == whole.codes[layer].tolist() for layer in range(4))
    assert len(np.unique(whole.codes[0])) > 10


def test_no_more_than_a_chunk_and_a_part_is_in_a_chunk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "PART_FRAMES", 500)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 2_000_000)
    config = config_of(folder, Path("unused"))
    (spec,) = plan_shards(config.input)
    made = list(prepare_shard(spec, config.input, config.prepare, [MONO]))
    assert len(made) > 25
    assert max(chunk.waveform_bytes for chunk in made) <= 2_000_000 + 500 * 1920 * 4
    assert sum(chunk.finished for chunk in made) == 4
    assert sum(chunk.input_bytes for chunk in made) == sum(path.stat().st_size for path in folder.iterdir())


def test_reading_resumes_at_a_clip_and_names_it_before_it_is_touched(folder: Path) -> None:
    config = config_of(folder, Path("unused"))
    (spec,) = plan_shards(config.input)
    resumption = Resumption(first=1, isolated_clips=2)
    made = list(prepare_shard(spec, config.input, config.prepare, [MONO], resumption))
    told = [(chunk.working_on.index if chunk.working_on else None, len(chunk.items[0])) for chunk in made]
    long_parts = [(1, 1)] * 8  # the last of which its end follows
    assert told == [(1, 0), *long_parts, (None, 1), (2, 0), (2, 1), (2, 1), (None, 1), (None, 1)]
    assert [chunk.finished for chunk in made if chunk.finished] == [1, 1, 1]
