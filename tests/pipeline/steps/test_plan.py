"""The plan: stable ids, every clip in exactly one shard, and inputs that cannot be planned are named."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.dataset.plan_file import plan_bytes, read_plan
from pipeline.input_config import InputConfig
from pipeline.items import RawClip, Reject, ShardSpec, stable_hash
from pipeline.steps import plan
from pipeline.steps.formats import format_of
from pipeline.steps.plan import PlanError, plan_shards
from pipeline.steps.read import read_shard
from pipeline.storage import StorageError
from pipeline.storage.location import Location
from tests.support import as_nobody, closed_to_others

FEW_FILES = settings(max_examples=20, deadline=None)


def config_of(*patterns: object, **options: Any) -> InputConfig:
    return InputConfig(splits={"train": tuple(map(str, patterns))}, **options)


def parquet_of(rows: int, row_group_size: int) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"id": [f"clip-{row}" for row in range(rows)], "audio": [b"x"] * rows})
    pq.write_table(table, sink, row_group_size=row_group_size)
    return sink.getvalue()


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_the_id_of_a_shard_is_the_same_for_ever() -> None:
    """A change of this literal orphans every output that is half done."""
    spec = ShardSpec(
        split="train",
        format="files",
        uri="s3://bucket/audio",
        start=0,
        stop=None,
        members=("a.wav", "ü/b.flac"),
        size=3,
        version="1",
    )
    assert spec.shard_id == "0def6b82d0b3da78"


@pytest.mark.parametrize(
    "change",
    [{"uri": "s3://bucket/b"}, {"start": 1}, {"stop": 9}, {"members": ("a",)}, {"format": "webdataset"}],
)
def test_the_id_of_a_shard_depends_on_what_it_reads(change: dict[str, Any]) -> None:
    same: dict[str, Any] = {"split": "train", "format": "parquet", "uri": "s3://bucket/a", "size": 1, "version": "1"}
    spec = ShardSpec(**same)
    assert ShardSpec(**same | change).shard_id != spec.shard_id
    assert ShardSpec(**same | {"split": "test", "size": 2, "clips": 3, "version": "2"}).shard_id == spec.shard_id


def test_the_plan_does_not_depend_on_the_order_in_which_the_store_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{folder}/{number}.wav" for folder in "cab" for number in range(5)))
    config = config_of(tmp_path, clips_per_shard=4)
    expected = plan_shards(config)
    find = type(Location.of(str(tmp_path)).filesystem).find

    def shuffled(*args: Any, **options: Any) -> dict[str, Any]:
        return dict(reversed(find(*args, **options).items()))

    monkeypatch.setattr(type(Location.of(str(tmp_path)).filesystem), "find", shuffled)
    assert plan_shards(config) == expected
    assert len({spec.shard_id for spec in expected}) == len(expected) == 4


@FEW_FILES
@given(
    names=st.sets(
        st.sampled_from([f"{folder}{number}.wav" for folder in ("", "x/", "x/y/") for number in range(6)]), min_size=1
    ),
    clips_per_shard=st.integers(1, 5),
)
def test_each_file_is_in_exactly_one_shard(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], clips_per_shard: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    touch(folder, *names)
    specs = plan_shards(config_of(folder, clips_per_shard=clips_per_shard))
    planned = [f"{spec.uri}/{member}" for spec in specs for member in spec.members]
    assert planned == sorted(f"{folder}/{name}" for name in names)
    assert all(spec.clips == len(spec.members) == spec.size <= clips_per_shard for spec in specs)


@FEW_FILES
@given(records=st.integers(1, 30), clips_per_shard=st.integers(1, 12))
def test_ranges_of_a_manifest_cover_each_record_once(
    tmp_path_factory: pytest.TempPathFactory, records: int, clips_per_shard: int
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "a.jsonl"
    path.write_text("".join(json.dumps({"audio": f"{number}.wav"}) + "\n\n" for number in range(records)))
    config = config_of(path, clips_per_shard=clips_per_shard)
    specs = plan_shards(config)
    keys = [item.origin.key for spec in specs for item in read_shard(spec, config)]
    assert keys == [f"{number}.wav" for number in range(records)]
    assert [spec.clips for spec in specs][:-1] == [clips_per_shard] * (len(specs) - 1)


@FEW_FILES
@given(rows=st.integers(1, 40), row_group_size=st.integers(1, 15), clips_per_shard=st.integers(1, 12))
def test_ranges_of_row_groups_cover_each_row_once(
    tmp_path_factory: pytest.TempPathFactory, rows: int, row_group_size: int, clips_per_shard: int
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    path.write_bytes(parquet_of(rows, row_group_size))
    config = config_of(path, clips_per_shard=clips_per_shard)
    specs = plan_shards(config)
    keys = [item.origin.key for spec in specs for item in read_shard(spec, config)]
    assert keys == [f"clip-{row}" for row in range(rows)]
    enough = -(-clips_per_shard // row_group_size) * row_group_size
    assert [spec.clips for spec in specs[:-1]] == [enough] * (len(specs) - 1)
    assert sum(spec.clips or 0 for spec in specs) == rows


def test_a_tar_is_one_shard_whatever_it_holds(corpus: Path) -> None:
    specs = plan_shards(config_of(corpus / "webdataset", clips_per_shard=1))
    assert [Path(spec.uri).name for spec in specs] == ["train-000000.tar", "train-000001.tar"]
    assert all(spec.clips is None and spec.format == "webdataset" for spec in specs)


def test_formats_go_by_name_and_splits_keep_their_order(corpus: Path) -> None:
    config = InputConfig(
        splits={
            "train": (f"{corpus}/webdataset/*.tar", f"{corpus}/folder/manifest.jsonl"),
            "test": (f"{corpus}/parquet", f"{corpus}/folder/prompts"),
        }
    )
    assert [(spec.split, spec.format) for spec in plan_shards(config)] == [
        ("train", "webdataset"),
        ("train", "webdataset"),
        ("train", "list"),
        ("test", "parquet"),
        ("test", "files"),
    ]


def test_an_object_in_two_splits_or_patterns_is_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    for splits in (
        {"train": (str(tmp_path),), "test": (f"{tmp_path}/a.wav",)},
        {"train": (f"{tmp_path}/*.wav", f"{tmp_path}/a.wav")},
    ):
        with pytest.raises(PlanError, match=r"a\.wav: matched by .* and by .*twice"):
            plan_shards(InputConfig(splits=splits))


def test_a_folder_of_several_formats_is_refused_with_what_it_holds(corpus: Path) -> None:
    with pytest.raises(PlanError, match=r"several formats: .*\d+ of (list|files|parquet|webdataset)"):
        plan_shards(config_of(corpus))


def test_unknown_endings_need_a_format_and_are_left_out_beside_known_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "clip.audio")
    with pytest.raises(PlanError, match=r"clip\.audio: set input\.format to files, list, .* arrow or lib"):
        plan_shards(config_of(tmp_path))
    (spec,) = plan_shards(config_of(tmp_path, format="files"))
    assert spec.members == ("clip.audio",)
    touch(tmp_path, "a.WAV", "README.md")
    (spec,) = plan_shards(config_of(tmp_path))
    assert spec.members == ("a.WAV",)
    assert "left out 2 files" in caplog.text


AUDIO_NAMES = """
a.wav a.w64 a.flac a.mp3 a.mp2 a.ogg a.oga a.opus a.spx a.m4a a.m4b a.mp4 a.mov a.3gp a.aac a.webm a.mka a.mkv a.aif
a.aiff a.aifc a.au a.snd a.caf a.wv a.tta a.amr a.wma a.asf a.sph a.nist a.g722
"""


def test_every_format_that_is_decoded_is_audio_by_its_usual_names() -> None:
    assert {format_of(name) for name in AUDIO_NAMES.split()} == {"files"}


def test_an_input_list_of_an_unknown_ending_is_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.jsonl.xz")
    with pytest.raises(PlanError, match=r"b\.jsonl\.xz: .* input lists end in \.jsonl, \.csv, \.tsv"):
        plan_shards(config_of(tmp_path, format="list"))


@pytest.mark.parametrize("pattern", ["gone.wav", "*.mp3", "empty"])
def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match="nothing there"):
        plan_shards(config_of(tmp_path / pattern))


def test_empty_manifests_are_passed_over_unless_there_is_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n")
    (tmp_path / "b.csv").write_text("audio,text\n")
    with pytest.raises(PlanError, match=r"no clips in .*a\.jsonl, .*b\.csv"):
        plan_shards(config_of(tmp_path))
    (tmp_path / "c.jsonl").write_text('{"audio": "x.wav"}')
    assert [Path(spec.uri).name for spec in plan_shards(config_of(tmp_path))] == ["c.jsonl"]


def test_a_parquet_file_without_a_footer_is_a_shard_for_the_reader_to_reject(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of(3, 3)[:-20])
    (tmp_path / "b.parquet").write_bytes(parquet_of(3, 3))
    (tmp_path / "c.parquet").write_bytes(b"")
    specs = plan_shards(config_of(tmp_path))
    assert [(Path(spec.uri).name, spec.stop, spec.clips) for spec in specs] == [
        ("a.parquet", None, None),
        ("b.parquet", 1, 3),
        ("c.parquet", None, None),
    ]


def test_a_parquet_footer_whose_names_are_not_utf8_is_a_shard_for_the_reader_to_reject(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of(3, 3).replace(b"audio", b"\xffudio"))
    config = config_of(tmp_path)
    (spec,) = plan_shards(config)
    (reject,) = read_shard(spec, config)
    assert isinstance(reject, Reject)
    assert reject.reason == "damaged_source"


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_store_that_fails_ends_the_plan_and_is_not_taken_for_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(parquet_of(1, 1))

    def fail(uri: str) -> None:
        raise StorageError(f"{uri}: cannot read it: timeout")

    monkeypatch.setattr(plan.storage, "open_read", fail)
    with pytest.raises(StorageError, match="timeout"):
        plan_shards(config_of(tmp_path))


@pytest.mark.parametrize("clips_per_shard", [2, 100])
def test_a_plan_is_read_back_as_it_was_written(corpus: Path, tmp_path: Path, clips_per_shard: int) -> None:
    strange = tmp_path / "ünï cödé"
    touch(strange, "日本.wav", os.fsdecode(b"latin-\xe9.wav"), "with\nline.wav")
    config = InputConfig(
        splits={
            "train": (f"{corpus}/webdataset", f"{corpus}/folder/manifest.jsonl"),
            "test": (f"{corpus}/parquet", str(strange)),
        },
        clips_per_shard=clips_per_shard,
    )
    specs = plan_shards(config)
    assert read_plan(plan_bytes(specs)) == specs
    assert plan_bytes(specs) == plan_bytes(plan_shards(config))
    assert pq.read_table(pa.BufferReader(plan_bytes(specs)))["shard_id"].to_pylist() == [s.shard_id for s in specs]


def test_a_plan_of_an_earlier_version_calls_an_input_list_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"audio": "a.wav"}\n')
    specs = plan_shards(config_of(tmp_path / "a.jsonl"))
    table = pq.read_table(pa.BufferReader(plan_bytes(specs)))
    position = table.schema.get_field_index("format")
    sink = io.BytesIO()
    pq.write_table(table.set_column(position, "format", pa.array(["manifest"])), sink)
    assert read_plan(sink.getvalue()) == specs
    assert specs[0].shard_id == stable_hash("manifest", specs[0].uri, "0", str(specs[0].stop))


def test_files_of_object_stores_are_planned_and_read_wherever_they_lie(wav: Callable[..., bytes]) -> None:
    for uri in ("memory://plan-a/x.wav", "memory://plan-b/sub/y.wav"):
        storage.publish(uri, wav())
    config = config_of("memory://plan-*/**/*.wav")
    items = [item for spec in plan_shards(config) for item in read_shard(spec, config)]
    assert [isinstance(item, RawClip) for item in items] == [True, True]


def test_a_folder_that_cannot_be_listed_stops_the_plan_or_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "shut/b.wav", "open/c.wav")

    def plan_with(unreadable: str) -> str:
        told: list[StorageError] = []
        specs = plan_shards(config_of(tmp_path, unreadable=unreadable), told.append)
        return f"{[member for spec in specs for member in spec.members]} and {len(told)} left out"

    with closed_to_others(tmp_path / "shut"):
        stopped, skipped = as_nobody(lambda: plan_with("fail")), as_nobody(lambda: plan_with("skip"))
    assert stopped.startswith(f"PlanError: {tmp_path}/shut: not allowed to list it")
    assert "input.unreadable=skip" in stopped
    assert skipped == "['a.wav', 'open/c.wav'] and 1 left out"
    assert plan_with("fail") == "['a.wav', 'open/c.wav', 'shut/b.wav'] and 0 left out"
