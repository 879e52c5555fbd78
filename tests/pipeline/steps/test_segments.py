"""Parts of files: each clip is exactly the samples that its record names, and its own text; a file is decoded once."""

from __future__ import annotations

import gzip
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from moss_tok import audio
from pipeline import storage
from pipeline.config import PrepareConfig
from pipeline.input_config import InputConfig
from pipeline.items import Clip, ClipEnd, ClipPart, Prepared, Reject, Segment
from pipeline.shard.chunks import prepare_shard
from pipeline.steps import prepare, segment_decoder
from pipeline.steps.plan import plan_shards
from pipeline.steps.prepare import Target

MONO = Target(sample_rate=24_000, channels=1, samples_per_frame=1920)


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Samples that are all different, (n, channels)."""
    return np.random.default_rng(7).uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype(np.float32)


def write(path: Path, seconds: float = 8, rate: int = 16_000, channels: int = 1, **options: Any) -> Path:
    sf.write(path, noise(seconds, rate, channels), rate, **options)
    return path


def write_list(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def expected(path: Path, start: int, stop: int | None, channels: list[int] | None = None) -> np.ndarray:
    """The frames that soundfile gives, mixed and resampled as any clip is."""
    frames, rate = sf.read(path, start=start, stop=stop, dtype="float32", always_2d=True)
    waveform = np.ascontiguousarray(frames.T if channels is None else frames.T[channels])
    return audio.resample(audio.to_channels(waveform, 1), rate, 24_000)


def run(pattern: Path | str, prepare_config: PrepareConfig | None = None, **options: Any) -> list[Prepared]:
    """What becomes of every clip of an input list."""
    config = InputConfig(splits={"train": (str(pattern),)}, **options)
    items: list[Prepared] = []
    for spec in plan_shards(config):
        for chunk in prepare_shard(spec, config, prepare_config or PrepareConfig(), [MONO]):
            items += chunk.items[0]
    return items


def waveforms(items: list[Prepared]) -> list[np.ndarray]:
    """The waveform of each clip, parts joined."""
    joined: list[np.ndarray] = []
    held: list[np.ndarray] = []
    for item in items:
        assert not isinstance(item, Reject), item.message
        if isinstance(item, ClipPart):
            held.append(item.waveform)
        else:
            joined.append(item.waveform if isinstance(item, Clip) else np.concatenate(held, axis=1))
            held = []
    return joined


def infos(items: list[Prepared]) -> list[Any]:
    return [item.info for item in items if isinstance(item, Clip | ClipEnd)]


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each file that begins to be decoded."""
    begun: list[int] = []
    decode_blocks = audio.decode_blocks

    def counted(source: bytes, *arguments: Any, **options: Any) -> Any:
        begun.append(len(source))
        return decode_blocks(source, *arguments, **options)

    monkeypatch.setattr(audio, "decode_blocks", counted)
    return begun


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that are fetched."""
    fetched: list[str] = []
    read_ahead = storage.read_ahead

    def counted(uris: Iterator[str | None], *arguments: Any, **options: Any) -> Any:
        def noted() -> Iterator[str | None]:
            for uri in uris:
                fetched.append(str(getattr(uri, "uri", uri)))
                yield uri

        return read_ahead(noted(), *arguments, **options)

    monkeypatch.setattr(storage, "read_ahead", counted)
    return fetched


@pytest.mark.parametrize(
    ("rate", "channels", "name"),
    [(16_000, 1, "a.flac"), (44_100, 2, "a.wav"), (22_050, 1, "a.wav"), (24_000, 1, "a.wav"), (8_000, 3, "a.flac")],
)
def test_offset_and_duration_are_the_frames_of_soundfile_resampled_bit_for_bit(
    tmp_path: Path, rate: int, channels: int, name: str
) -> None:
    path = write(tmp_path / name, 35, rate, channels)
    parts = [(0.0, 1.25), (1.25, 0.7301), (9.5, 12.0), (9.99995, 0.0001), (30.123456, 4.5)]
    records = [
        {"audio_filepath": name, "offset": offset, "duration": duration, "text": f"text {number}"}
        for number, (offset, duration) in enumerate(parts)
    ]
    items = run(write_list(tmp_path / "list.jsonl", *records))
    for (offset, duration), info, waveform in zip(parts, infos(items), waveforms(items), strict=True):
        start = round(offset * rate)
        assert np.array_equal(waveform, expected(path, start, start + round(duration * rate)))
        assert info.origin.segment.start == offset
        assert info.origin.source == str(path)
    assert [info.description.text for info in infos(items)] == [f"text {number}" for number in range(5)]


def test_every_kind_of_record_says_a_part_in_its_own_words(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    kinds = [
        ({"offset": 1, "duration": 2}, 1, 3),
        ({"start": 2.5, "end": 3.75}, 2.5, 3.75),
        ({"start": 3.0, "duration": 0.5}, 3, 3.5),
        ({"start_time": 4, "end_time": 5}, 4, 5),
        ({"start_seconds": 5.0, "end_seconds": 6.0}, 5, 6),
        ({"start_time_seconds": 6.0, "end_time_seconds": 6.5}, 6, 6.5),
        ({"start": 6.5, "end": 7.5, "duration": 1.0}, 6.5, 7.5),
        ({"offset": 7.5}, 7.5, 8),
    ]
    items = run(write_list(tmp_path / "list.jsonl", *({"audio": "a.wav", **fields} for fields, _, _ in kinds)))
    for (_, start, stop), info, waveform in zip(kinds, infos(items), waveforms(items), strict=True):
        assert np.array_equal(waveform, expected(path, round(start * 16_000), round(stop * 16_000)))
        assert info.description.metadata == {}


def test_a_table_of_audioset_has_numbers_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    table = tmp_path / "list.csv"
    table.write_text(
        'path,start_seconds,end_seconds,positive_labels\na.wav,1.000,3.000,"/m/09x0r,/m/05zppz"\na.wav,,,x\n'
    )
    items = run(table)
    whole, part = infos(items)
    assert (whole.origin.segment, whole.num_samples) == (None, 8 * 24_000)
    assert part.origin.segment == Segment(start=1.0, stop=3.0)
    assert part.description.labels == ("/m/09x0r", "/m/05zppz")
    assert np.array_equal(waveforms(items)[1], expected(path, 16_000, 48_000))


def test_a_list_of_segments_is_a_clip_for_each_with_times_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac")
    record = {
        "audio": "a.flac",
        "text": "one two three",
        "duration": 8.0,
        "language": "en",
        "id": "episode",
        "segments": [
            {
                "id": 1,
                "start": 4.0,
                "end": 6.0,
                "text": "two",
                "speaker": "b",
                "score": -0.5,
                "words": [{"word": "two", "start": 4.25, "end": 4.75, "probability": 0.5}],
            },
            {"id": 0, "start": 0.5, "end": 1.5, "text": "one", "speaker": "a", "words": [{"timestamp": [0.75, 1.0]}]},
        ],
    }
    items = run(write_list(tmp_path / "list.jsonl", record))
    first, second = infos(items)
    assert (first.description.text, second.description.text) == ("one", "two")
    assert (first.description.speaker_id, second.description.speaker_id) == ("a", "b")
    assert (first.description.language, second.description.language) == ("en", "en")
    assert first.description.metadata == {"id": 0, "words": [{"timestamp": [0.25, 0.5]}]}
    assert second.description.metadata == {
        "id": 1,
        "score": -0.5,
        "words": [{"word": "two", "start": 0.25, "end": 0.75, "probability": 0.5}],
    }
    assert (first.origin.key, second.origin.key) == ("a.flac#t=0.5,1.5", "a.flac#t=4,6")
    assert (first.origin.index, second.origin.index) == (0, 1)
    assert np.array_equal(waveforms(items)[1], expected(path, 64_000, 96_000))


def test_a_duration_alone_is_no_part(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    (item,) = run(write_list(tmp_path / "list.jsonl", {"audio": "a.wav", "duration": 2.5}))
    assert isinstance(item, Clip)
    assert (item.info.origin.segment, item.info.num_samples) == (None, 8 * 24_000)
    assert item.info.description.metadata == {"duration": 2.5}


def test_the_configuration_names_other_fields_or_leaves_all_as_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    other = write_list(tmp_path / "other.jsonl", {"audio": "a.wav", "from": 1, "to": 2})
    (waveform,) = waveforms(run(other, start_column="from", end_column="to"))
    assert np.array_equal(waveform, expected(path, 16_000, 32_000))
    usual = write_list(tmp_path / "usual.jsonl", {"audio": "a.wav", "start": 1, "end": 2, "segments": [{"start": 1}]})
    (item,) = run(usual, segments=False)
    assert isinstance(item, Clip)
    assert item.info.num_samples == 8 * 24_000
    assert item.info.description.metadata == {"start": 1, "end": 2, "segments": [{"start": 1}]}


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ({"offset": -1, "duration": 2}, "bad_record", "-1 s"),
        ({"start": 3, "end": 3}, "bad_record", "no length"),
        ({"start": 3, "end": 2}, "bad_record", "no length"),
        ({"offset": 1, "duration": 0}, "bad_record", "no length"),
        ({"offset": 1, "duration": -2}, "bad_record", "-2 s"),
        ({"start": "00:01:02", "end": 70}, "bad_record", "start is '00:01:02'"),
        ({"start": [1], "end": 70}, "bad_record", "seconds are expected"),
        ({"start": 1e300, "end": 2e300}, "bad_record", "1e+300 s"),
        ({"start": 1, "end": 3, "duration": 5}, "bad_record", "disagree"),
        ({"segments": []}, "bad_record", "empty"),
        ({"segments": [{"start": 1, "end": 2}], "offset": 3}, "bad_record", "both"),
        ({"offset": 7.5, "duration": 0.6}, "outside_file", "8.000000 s long"),
        ({"offset": 7.5, "duration": 0.5001}, "outside_file", "8.000000 s long"),
        ({"offset": 8.0, "duration": 0.1}, "outside_file", "t=8,8.1"),
        ({"offset": 8.0}, "outside_file", "t=8 "),
        ({"offset": 900, "duration": 1}, "outside_file", "8.000000 s long"),
        ({"offset": 1, "duration": 1e-6}, "outside_file", "no sample at 16000 Hz"),
    ],
)
def test_what_is_no_part_of_the_file_is_a_reject_between_sound_neighbours(
    tmp_path: Path, fields: dict[str, Any], reason: str, message: str
) -> None:
    write(tmp_path / "a.wav")
    sound = {"audio": "a.wav", "offset": 0, "duration": 1}
    items = run(write_list(tmp_path / "list.jsonl", sound, {"audio": "a.wav", **fields}, sound))
    rejects = [item for item in items if isinstance(item, Reject)]
    assert [reject.reason for reject in rejects] == [reason]
    assert message in rejects[0].message
    assert len(infos(items)) == 2
    if reason == "bad_record":
        assert rejects[0].message.startswith("line 2: ")
    assert sorted(item.origin.index if isinstance(item, Reject) else item.info.origin.index for item in items) == [
        0,
        1,
        2,
    ]


def test_a_file_is_fetched_and_decoded_once_for_all_of_its_parts(
    tmp_path: Path, decodings: list[int], fetches: list[str]
) -> None:
    paths = [write(tmp_path / name, 30) for name in ("a.wav", "b.wav")]
    records = [
        {"audio": path.name, "offset": start, "duration": 1.5, "text": f"{path.name} {start}"}
        for path in paths
        for start in (20, 3, 3.5, 0, 28.5, 11)
    ]
    items = run(write_list(tmp_path / "list.jsonl", *records))
    assert [info.description.text for info in infos(items)] == [
        f"{name} {start}" for name in ("a.wav", "b.wav") for start in (0, 3, 3.5, 11, 20, 28.5)
    ]
    assert decodings == [path.stat().st_size for path in paths]
    assert fetches == [str(path) for path in paths]


def test_parts_that_overlap_are_taken_from_what_is_still_there(
    tmp_path: Path, decodings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.flac", 60)
    parts = [(start, 15) for start in range(0, 45, 3)]
    records = [{"audio": "a.flac", "offset": start, "duration": length} for start, length in parts]
    manifest = write_list(tmp_path / "list.jsonl", *records)
    once = waveforms(run(manifest))
    assert len(decodings) == 1
    monkeypatch.setattr(segment_decoder, "WINDOW_BYTES", 1)  # nothing stays: the file is begun again, to the same end
    again = waveforms(run(manifest))
    assert len(decodings) > 2
    for (start, length), one, other in zip(parts, once, again, strict=True):
        wanted = expected(path, start * 16_000, (start + length) * 16_000)
        assert np.array_equal(one, wanted)
        assert np.array_equal(other, wanted)


@pytest.mark.slow
def test_a_part_is_the_same_whether_it_is_decoded_alone_or_with_others(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.mp3", noise(40, 44_100, 2), 44_100)
    records = [{"audio": "a.mp3", "offset": start, "duration": 3.3} for start in (0.4, 2.2, 17.77, 30.01)]
    together = waveforms(run(write_list(tmp_path / "all.jsonl", *records)))
    for number, record in enumerate(records):
        (alone,) = waveforms(run(write_list(tmp_path / f"{number}.jsonl", record)))
        assert np.array_equal(alone, together[number])
    whole, _ = sf.read(tmp_path / "a.mp3", dtype="float32")
    start = round(17.77 * 44_100)
    part = np.ascontiguousarray(whole[start : start + round(3.3 * 44_100)].T)
    assert np.array_equal(together[2], audio.resample(audio.to_channels(part, 1), 44_100, 24_000))


def test_long_parts_travel_in_pieces_of_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "PART_FRAMES", 25)  # two seconds
    path = write(tmp_path / "a.wav", 30)
    records = [{"audio": "a.wav", "offset": 3.2, "duration": 11.1}, {"audio": "a.wav", "offset": 4, "duration": 1}]
    items = run(write_list(tmp_path / "list.jsonl", *records))
    assert sum(isinstance(item, ClipPart) for item in items) == 6
    long, short = waveforms(items)
    assert np.array_equal(long, expected(path, 51_200, 51_200 + 177_600))
    assert np.array_equal(short, expected(path, 64_000, 80_000))
    loud = run(tmp_path / "list.jsonl", PrepareConfig.model_validate({"loudness": {"target_dbfs": -20}}))
    gain = np.float32(10 ** (infos(loud)[0].gain_db / 20))
    assert infos(loud)[0].gain_db != 0
    assert np.array_equal(waveforms(loud)[0], long * gain)


def test_the_limits_on_length_are_those_of_the_part_and_not_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 30)
    records = [{"audio": "a.wav", "offset": 0, "duration": length} for length in (1, 5, 20)]
    items = run(write_list(tmp_path / "list.jsonl", *records), PrepareConfig(min_seconds=2, max_seconds=10))
    assert [
        item.reason if isinstance(item, Reject) else "sound" for item in items if not isinstance(item, ClipPart)
    ] == [
        "too_short",
        "sound",
        "too_long",
    ]


def test_damage_spoils_the_parts_behind_it_alone_and_is_looked_for_once(tmp_path: Path, decodings: list[int]) -> None:
    samples = noise(60, 16_000)
    samples[30 * 16_000] = np.nan
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    records = [{"audio": "a.wav", "offset": start, "duration": 2} for start in (5, 25, 31, 45, 55)]
    items = run(write_list(tmp_path / "list.jsonl", *records))
    assert [item.reason if isinstance(item, Reject) else "sound" for item in items] == [
        "sound",
        "sound",
        *3 * ["non_finite"],
    ]
    assert len(decodings) == 1
    (tmp_path / "b.wav").write_bytes(b"no sound at all, but for this")
    items = run(write_list(tmp_path / "list.jsonl", *({**record, "audio": "b.wav"} for record in records)))
    assert [item.reason for item in items if isinstance(item, Reject)] == 5 * ["not_audio"]
    assert len(decodings) == 2


def test_what_was_read_of_a_file_is_counted_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    records = [{"audio": "a.wav", "offset": start, "duration": 1} for start in range(4)]
    config = InputConfig(splits={"train": (str(write_list(tmp_path / "list.jsonl", *records)),)})
    (spec,) = plan_shards(config)
    chunks = [*prepare_shard(spec, config, PrepareConfig(), [MONO])]
    assert sum(chunk.input_bytes for chunk in chunks) == path.stat().st_size


def test_the_parts_of_a_file_are_planned_into_one_shard_but_not_without_end(tmp_path: Path) -> None:
    files = [("a.wav", 3), ("b.wav", 9), ("c.wav", 1), ("d.wav", 50)]
    records = [{"audio": name, "offset": start, "duration": 1} for name, count in files for start in range(count)]
    records.append({"audio": "e.wav", "segments": [{"start": start, "end": start + 1} for start in range(30)]})
    config = InputConfig(splits={"train": (str(write_list(tmp_path / "list.jsonl", *records)),)}, clips_per_shard=5)
    specs = plan_shards(config)
    assert [spec.clips for spec in specs] == [12, 20, 20, 11, 30]
    lines = (tmp_path / "list.jsonl").read_bytes().splitlines(keepends=True)
    for spec in specs:
        assert spec.start == sum(map(len, lines[: spec.first_line - 1]))


def test_a_packed_list_is_read_as_one_that_is_not(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    records = [{"audio": "a.wav", "offset": start, "duration": 1} for start in range(8)]
    plain = write_list(tmp_path / "list.jsonl", *records)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    one, other = run(plain, clips_per_shard=1), run(tmp_path / "packed.jsonl.gz", clips_per_shard=1)
    assert len(one) == 8
    assert all(np.array_equal(a, b) for a, b in zip(waveforms(one), waveforms(other), strict=True))


def test_a_file_that_is_read_in_parts_may_be_larger_than_a_clip_but_not_without_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    size = path.stat().st_size
    part, whole = {"audio": "a.wav", "offset": 1, "duration": 1}, {"audio": "a.wav"}
    items = run(write_list(tmp_path / "list.jsonl", whole, part, whole), max_clip_bytes=size - 1)
    assert [item.reason if isinstance(item, Reject) else "part" for item in items] == 2 * ["too_many_bytes"] + ["part"]
    assert np.array_equal(waveforms(items[2:])[0], expected(path, 16_000, 32_000))
    (reject,) = run(write_list(tmp_path / "list.jsonl", part), max_file_bytes=size - 1)
    assert isinstance(reject, Reject)
    assert reject.reason == "too_many_bytes"


def test_a_file_of_a_store_is_copied_for_its_parts_and_nothing_is_left_of_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.flac")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    root = f"memory://{uuid.uuid4().hex}"
    storage.publish(f"{root}/a.flac", path.read_bytes())
    records = [{"audio": "a.flac", "offset": start, "duration": 1} for start in (0, 3)]
    storage.publish(f"{root}/list.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())
    items = run(f"{root}/list.jsonl")
    assert np.array_equal(waveforms(items)[1], expected(path, 48_000, 64_000))
    assert list((tmp_path / "temporary").iterdir()) == []
    (reject, _) = run(f"{root}/list.jsonl", max_file_bytes=100)
    assert isinstance(reject, Reject)
    assert reject.reason == "too_many_bytes"


def test_a_file_that_is_replaced_meanwhile_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    wanted = expected(path, 16_000, 32_000)
    held = storage.open_on_disk(str(path), 10**9)
    path.unlink()
    path.write_bytes(b"another")
    frames, rate = sf.read(held.file, start=16_000, stop=32_000, dtype="float32")
    assert np.array_equal(audio.resample(frames[None], rate, 24_000), wanted)
    assert Path(held).read_bytes()[:4] == b"RIFF"


@pytest.mark.slow
def test_twelve_hours_are_cut_up_in_little_memory(tmp_path: Path, decodings: list[int]) -> None:
    """Of silence, which FLAC packs into two megabytes: decoded they are 1.4 GB."""
    path = tmp_path / "a.flac"
    with sf.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
        for _ in range(12 * 60):
            file.write(np.zeros(60 * 8_000, np.int16))
    starts = [0, 3_600, 20_000, 43_190]
    records = [{"audio": "a.flac", "offset": start, "duration": 10} for start in starts]
    held: list[int] = []
    decode = segment_decoder.SegmentDecoder._decode

    def watched(self: Any, first: int) -> Any:
        block = decode(self, first)
        held.append(sum(waveform.nbytes for _, waveform in self._window))
        return block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_decoder.SegmentDecoder, "_decode", watched)
        items = run(write_list(tmp_path / "list.jsonl", *records))
    assert [info.num_samples for info in infos(items)] == 4 * [240_000]
    assert len(decodings) == 1
    assert max(held) < 4 * 2**20
