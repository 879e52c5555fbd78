"""Long recordings as clips: cut in pauses, of the wanted length, and not a sample lost."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from pipeline.config import PrepareConfig, parse_config
from pipeline.dataset.dataset import read_output
from pipeline.dataset.opening import OutputMismatch, open_output
from pipeline.export.rows import read_rows
from pipeline.input_config import InputConfig
from pipeline.items import Clip, Prepared, RawClip, Reject
from pipeline.shard.chunks import Place, Resumption, prepare_shard
from pipeline.signal_config import SplitAtPausesConfig
from pipeline.steps.plan import plan_shards
from pipeline.steps.prepare import Target
from pipeline.steps.read import read_shard
from pipeline.steps.read.pauses import SAMPLE_RATE, WINDOW, cut_points
from pipeline.verify.verify import verify
from pipeline.yaml_config import ConfigError
from tests.support import CORPUS, data_files, rows, tokenize_in_process

RATE = 16_000
TARGET = Target(sample_rate=RATE, channels=1, samples_per_frame=1280)
LENGTHS = {"max_seconds": 6.0, "min_seconds": 2.0}


def config_of(**lengths: float) -> SplitAtPausesConfig:
    return SplitAtPausesConfig(**{"max_seconds": 10.0, "min_seconds": 2.0, **lengths})


def cuts(
    speech: list[tuple[float, float]], seconds: float, unlikely: float | None = None, **lengths: float
) -> list[tuple[float, bool]]:
    """`cut_points` in seconds, where all windows are equally likely to be speech, but for the one at `unlikely`."""
    probabilities = np.full(round(seconds * SAMPLE_RATE) // WINDOW + 1, 0.9, np.float32)
    if unlikely is not None:
        probabilities[round(unlikely * SAMPLE_RATE) // WINDOW] = 0.6
    runs = [(round(start * SAMPLE_RATE), round(stop * SAMPLE_RATE)) for start, stop in speech]
    found = cut_points(runs, round(seconds * SAMPLE_RATE), probabilities, config_of(**lengths))
    return [(position / SAMPLE_RATE, in_speech) for position, in_speech in found]


def test_the_longest_pause_within_reach_is_cut_in_its_middle():
    speech = [(0.0, 3.0), (3.4, 6.0), (7.0, 9.0), (9.2, 14.0)]
    assert cuts(speech, 14) == [(6.5, False)]


def test_without_a_pause_it_is_cut_where_speech_is_the_least_likely_and_that_is_said():
    assert cuts([(0.0, 13.0)], 13, unlikely=4.7) == [(pytest.approx(4.7, abs=0.032), True)]
    at_the_limit = [(pytest.approx(10, abs=0.05), True), (pytest.approx(20, abs=0.1), True)]
    assert cuts([(0.0, 23.0)], 23) == at_the_limit
    assert cuts([(0.0, 1.0), (1.5, 23.0)], 23) == at_the_limit, "the pause would leave too short a clip"
    assert cuts([(0.0, 23.0)], 23, unlikely=1.7) == at_the_limit, "and so would this"


def test_a_long_silence_is_cut_as_late_as_is_allowed_and_not_as_speech():
    assert cuts([], 35) == [(10, False), (20, False), (27.5, False)]
    assert cuts([(0.0, 8.0), (29.0, 31.0)], 31) == [(10, False), (19.5, False), (24.25, False)]


def test_the_last_clip_is_not_too_short():
    assert cuts([(0.0, 10.5)], 10.5) == [(pytest.approx(8.5, abs=0.05), True)]
    assert cuts([(0.0, 4.01)], 4.01, max_seconds=4) == [(pytest.approx(2, abs=0.02), True)], (
        "less than a window's choice"
    )
    assert cuts([(0.0, 10.5)], 10) == []


@pytest.mark.parametrize("seed", range(20))
def test_every_clip_has_an_allowed_length(seed: int):
    draw = np.random.default_rng(seed)
    edges = np.cumsum(draw.exponential(1.5, 80) * SAMPLE_RATE).astype(int) + np.arange(80)
    num_samples = int(edges[-1]) + int(draw.integers(1, SAMPLE_RATE * 30))
    speech = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    found = cut_points(speech, num_samples, draw.random(num_samples // WINDOW + 1), config_of())
    lengths = np.diff([0, *(position for position, _ in found), num_samples])
    assert lengths.min() >= 2 * SAMPLE_RATE
    assert lengths.max() <= 10 * SAMPLE_RATE
    for position, in_speech in found:
        assert in_speech or not any(start < position < stop for start, stop in speech)


def test_lengths_must_leave_room():
    document = {"input": {"splits": {"a": ["b"]}, "split_at_pauses": {"max_seconds": 10, "min_seconds": 6}}}
    with pytest.raises(ConfigError, match=r"input\.split_at_pauses: min_seconds 6 is more than half of max_seconds 10"):
        parse_config({**document, "output": {"uri": "c"}})


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """Nineteen seconds of speech with five pauses of 0.4 s."""
    parts: list[np.ndarray] = []
    for name in ("0870", "0880", "0890", "0920", "0930"):
        sound, rate = sf.read(CORPUS / "folder" / "librivox" / f"{name}.wav", dtype="float32")
        assert rate == RATE
        parts += [sound[: 4 * RATE], np.zeros(RATE * 2 // 5, np.float32)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, talk: np.ndarray) -> Path:
    """Two recordings, a short clip, and one that is cut short."""
    folder = tmp_path_factory.mktemp("talks")
    sf.write(folder / "a.wav", talk, RATE, subtype="FLOAT")
    sf.write(folder / "b.flac", talk[: 3 * RATE], RATE)
    sf.write(folder / "c.wav", talk[::-1], RATE, subtype="FLOAT")
    (folder / "d.wav").write_bytes((folder / "a.wav").read_bytes()[: 8 * RATE])
    return folder


def input_of(*patterns: Path | str, **options: Any) -> InputConfig:
    splits = {"train": tuple(str(pattern) for pattern in patterns)}
    return InputConfig.model_validate({"splits": splits, "split_at_pauses": LENGTHS, **options})


def prepared(config: InputConfig, resumption: Resumption | None = None) -> list[Prepared]:
    (spec,) = plan_shards(config)
    chunks = prepare_shard(spec, config, PrepareConfig(), [TARGET], resumption or Resumption())
    return [item for chunk in chunks for item in chunk.items[0]]


def described(items: list[Prepared]) -> list[tuple[int, str, Any]]:
    found: list[tuple[int, str, Any]] = []
    for item in items:
        origin = item.origin if isinstance(item, Reject) else item.info.origin  # type: ignore[union-attr]
        found.append((origin.index, origin.key, item.reason if isinstance(item, Reject) else origin.segment))
    return found


def test_the_clips_of_a_recording_are_all_of_it(folder: Path, talk: np.ndarray):
    items = prepared(input_of(folder))
    clips = [item for item in items if isinstance(item, Clip)]
    first = [clip for clip in clips if clip.info.origin.key.startswith("a.wav")]
    assert len(first) >= 4
    assert np.array_equal(np.concatenate([clip.waveform[0] for clip in first]), talk)
    assert all(2 <= clip.waveform.shape[1] / RATE <= 6 for clip in first)
    for clip in first[:-1]:  # in a pause: the samples at both sides of a cut are silent
        assert not clip.waveform[0, -RATE // 20 :].any() or "cut_in_speech" in clip.info.description.metadata
    assert sum("cut_in_speech" in clip.info.description.metadata for clip in first) < len(first) / 2
    times = [clip.info.origin.segment for clip in first]
    assert [time.start for time in times[1:]] == [time.stop for time in times[:-1]]
    assert times[0].start == 0
    assert times[-1].stop == len(talk) / RATE


def test_positions_count_clips_and_short_and_damaged_ones_stay_whole(folder: Path):
    found = described(prepared(input_of(folder)))
    assert [index for index, _, _ in found] == list(range(len(found)))
    short = next(entry for entry in found if entry[1] == "b.flac")
    assert short[2] is None
    assert found[-1][1:] == ("d.wav", "truncated")
    config = input_of(folder)
    read = [(raw.origin.index, raw.origin.key) for raw in read_shard(plan_shards(config)[0], config)]
    assert read == [entry[:2] for entry in found]


@pytest.mark.parametrize("isolated", [0, 3])
def test_a_reader_goes_on_at_any_clip(folder: Path, isolated: int):
    config = input_of(folder)
    everything = described(prepared(config))
    of_c = next(index for index, key, _ in everything if key.startswith("c.wav"))
    for first in (1, of_c, of_c + 2):
        place = Place(2, of_c) if first >= of_c else Place()
        going_on = Resumption(first=first, isolated_clips=isolated, place=place)
        assert described(prepared(config, going_on)) == everything[first:]


def test_the_words_of_a_recording_are_not_those_of_its_clips(folder: Path, tmp_path: Path, talk: np.ndarray):
    sf.write(tmp_path / "talk.wav", np.stack([talk, -talk], axis=1), RATE)
    record = '{"audio": "talk.wav", "text": "all of it", "words": [], "language": "en", "show": "news", "duration": 22}'
    (tmp_path / "list.jsonl").write_text(record + "\n" + record.replace("22}", '18, "offset": 2.0}') + "\n")
    config = input_of(tmp_path / "list.jsonl", split_channels=2)
    clips = [raw for raw in read_shard(plan_shards(config)[0], config) if isinstance(raw, RawClip)]
    whole = [raw for raw in clips if raw.origin.segment.start == 0]
    assert [raw.origin.key.rpartition("&")[2] for raw in whole] == ["channel=0", "channel=1"]
    assert whole[0].origin.key.startswith("talk.wav#t=0,")
    part = next(raw for raw in clips if raw.origin.segment.start == 2.0)
    assert part.origin.key == f"talk.wav#{part.origin.segment.fragment}&channel=0"
    assert max(raw.origin.segment.stop for raw in clips) == len(talk) / RATE
    for raw in clips:
        about = raw.description
        assert (about.text, about.language) == (None, "en")
        assert about.metadata.keys() - {"cut_in_speech"} == {"show", "channel"}
    assert sum(raw.input_bytes for raw in clips) == (tmp_path / "talk.wav").stat().st_size


def test_an_output_is_verified_resumed_and_exported(tmp_path: Path, talk: np.ndarray):
    """From a tar, whose members have no file of their own."""
    buffer = io.BytesIO()
    sf.write(buffer, talk, RATE, format="WAV")
    with tarfile.open(tmp_path / "talks.tar", "w") as tar:
        for name in ("one.wav", "two.wav"):
            member = tarfile.TarInfo(name)
            member.size = buffer.getbuffer().nbytes
            buffer.seek(0)
            tar.addfile(member, buffer)
    document = {
        "input": {"splits": {"train": [str(tmp_path / "talks.tar")]}, "split_at_pauses": LENGTHS},
        "output": {"uri": str(tmp_path / "out")},
        "model": {"name": "cat-tiny", "num_quantizers": 2},
    }
    tokenize_in_process(parse_config(document))
    found = rows(tmp_path / "out")
    assert len(found) >= 8
    assert sum(row["duration"] for row in found) == pytest.approx(2 * len(talk) / RATE)
    assert {row["key"].partition("#")[0] for row in found} == {"one", "two"}
    assert verify(str(tmp_path / "out"), sample=None).differences == []

    output = read_output(str(tmp_path / "out"))
    assert output.record.split_at_pauses["package"] == "silero-vad"
    audio = {row.audio for row in read_rows(output, output.specs[0], 0)}
    assert audio == {f"{output.specs[0].uri}#one", f"{output.specs[0].uri}#two"}
    before = data_files(tmp_path / "out")
    (tmp_path / "out" / "_moss_tok" / "shards" / f"{output.specs[0].shard_id}.json").unlink()
    for path in before:
        (tmp_path / "out" / path).unlink()
    tokenize_in_process(parse_config(document))
    assert data_files(tmp_path / "out") == before
    document["input"]["split_at_pauses"] = {**LENGTHS, "max_seconds": 8.0}
    with pytest.raises(OutputMismatch, match=r"split_at_pauses\.max_seconds: the output has 6.0, this run 8.0"):
        open_output(parse_config(document))


def test_ten_hours_have_a_clip_for_each_half_minute():
    speech = [(start * SAMPLE_RATE, start * SAMPLE_RATE + SAMPLE_RATE * 3 // 2) for start in range(0, 36_000, 2)]
    nothing = np.zeros(36_000 * SAMPLE_RATE // WINDOW)
    found = cut_points(speech, 36_000 * SAMPLE_RATE, nothing, config_of(max_seconds=30, min_seconds=10))
    assert len(found) >= 36_000 / 30
    assert not any(in_speech for _, in_speech in found)
