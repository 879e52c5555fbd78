"""Parquet: each row becomes a clip or a reject, and damage costs no more than the rows that it hit."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.input_config import InputConfig
from pipeline.items import RawClip, Reject, ShardSpec
from pipeline.steps.plan import plan_shards
from pipeline.steps.read import SourceChanged, parquet, read_shard
from pipeline.steps.read.parquet import read_parquet
from pipeline.steps.read.rows import SourceError
from pipeline.steps.reject_reasons import READ_REASONS
from pipeline.storage import StorageError

ReadAll = Callable[..., Any]
HUGGING_FACE_AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def read_table(tmp_path: Path, read_all: ReadAll) -> ReadAll:
    """The items of a table that is written as Parquet."""

    def read(table: pa.Table, row_group_size: int | None = None, **options: Any) -> Any:
        path = tmp_path / "a.parquet"
        pq.write_table(table, path, row_group_size=row_group_size, write_page_checksum=True)
        return read_all(path, **options)

    return read


def one_row(**columns: pa.Array) -> pa.Table:
    return pa.table({"audio": pa.array([b"data"])} | columns)


def test_each_row_of_the_corpus_comes_out_once_with_its_fields(
    corpus: Path, inventory: list[dict[str, Any]], read_all: ReadAll
) -> None:
    items = read_all(corpus / "parquet")
    entries = [entry for entry in inventory if entry["packing"] == "parquet"]
    assert sorted(item.origin.key for item in items) == sorted(entry["key"] for entry in entries)
    rows = pq.read_table(corpus / "parquet").to_pylist()
    assert [item.origin.key for item in items] == [row["id"] for row in rows]
    for item, row in zip(items, rows, strict=True):
        assert item.origin.source == str(next((corpus / "parquet").iterdir()))
        if row["audio"]["bytes"] is None:
            assert (item.reason, row["id"]) == ("no_audio", "broken_null-bytes")
        else:
            assert (item.data, item.description.text) == (row["audio"]["bytes"], row["text"])
            assert item.description.language == row["language"]
            assert item.description.metadata == {"id": row["id"], "path": row["audio"]["path"]}


def test_speaker_and_labels_have_the_types_that_datasets_give_them(read_table: ReadAll) -> None:
    columns = {"speaker_id": pa.array([84]), "human_labels": pa.array([["Speech", "Male speech, man speaking"]])}
    (item,) = read_table(one_row(**columns))
    assert (item.description.speaker_id, item.description.labels) == ("84", ("Speech", "Male speech, man speaking"))
    assert item.description.metadata == {}


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
        *(HUGGING_FACE_AUDIO, pa.struct([("bytes", pa.large_binary())])),
    ],
)
def test_audio_is_binary_or_a_struct_with_bytes(read_table: ReadAll, kind: pa.DataType) -> None:
    cells: list[Any] = [b"one", b"", None]
    if pa.types.is_struct(kind):
        cells = [{"bytes": cell} for cell in cells]
    items = read_table(pa.table({"audio": pa.array(cells, kind)}))
    assert [item.reason if isinstance(item, Reject) else item.data for item in items] == [b"one", b"", "no_audio"]
    assert [item.origin.key for item in items] == ["0", "1", "2"]


def test_a_missing_struct_and_a_path_alone_hold_no_audio(read_table: ReadAll) -> None:
    items = read_table(pa.table({"audio": pa.array([None, {"path": "gone.wav"}], HUGGING_FACE_AUDIO)}))
    assert [item.reason for item in items] == ["no_audio", "no_audio"]
    assert "gone.wav" in items[1].message


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a.wav"]), "column audio is string"),
        (pa.array([1.0]), "column audio is double"),
        (pa.array([{"path": "a.wav"}]), "column audio is struct"),
        (pa.array([{"bytes": "text"}]), "column audio is struct"),
        (pa.array([[0.5, 0.5]]), "column audio is list"),
    ],
)
def test_an_audio_column_of_another_type_is_named(read_table: ReadAll, column: pa.Array, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_table(pa.table({"audio": column}))
    assert "a.parquet" in str(caught.value)


def test_a_missing_audio_column_is_named_with_those_that_are_there(read_table: ReadAll) -> None:
    table = pa.table({"wave": pa.array([b"x"]), "text": ["hi"]})
    with pytest.raises(SourceError, match=r"no column audio among wave, text: set input\.audio_column"):
        read_table(table)
    with pytest.raises(SourceError, match="no column sound"):
        read_table(table, audio_column="sound")
    (item,) = read_table(table, audio_column="wave")
    assert (item.data, item.description.text) == (b"x", "hi")


def test_keys_are_ids_where_there_are_some_and_row_numbers_else(read_table: ReadAll) -> None:
    ids = pa.array(["x", None, "", "x"])
    items = read_table(pa.table({"audio": [b"1"] * 4, "id": ids}), row_group_size=2, clips_per_shard=2)
    assert [item.origin.key for item in items] == ["x", "1", "2", "x"]
    items = read_table(pa.table({"audio": [b"1"] * 3, "id": [7, 0, 7]}))
    assert [item.origin.key for item in items] == ["7", "0", "7"]


def test_a_clip_over_the_limit_is_refused(read_table: ReadAll) -> None:
    items = read_table(pa.table({"audio": [b"x" * 11, b"x" * 10]}), max_clip_bytes=10)
    assert [getattr(item, "reason", None) for item in items] == ["too_many_bytes", None]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([datetime.datetime(2026, 1, 2)]), "2026-01-02 00:00:00"),
        (pa.array([10**18 + 1], pa.timestamp("ns")), "2001-09-09 01:46:40.000000001"),
        (pa.array([2**62], pa.timestamp("us")), "left out: Python cannot hold this timestamp[us]"),
        (
            pa.array([0], pa.timestamp("us", tz="Mars/Olympus")),
            "left out: Python cannot hold this timestamp[us, tz=Mars/Olympus]",
        ),
        (pa.array([decimal.Decimal("1.50")]), "1.50"),
        (pa.array([float("nan")]), "nan"),
        (pa.array([b"\x00\xff"]), "AP8="),
        (pa.array([{"a": [{"b": None}, None]}]), {"a": [{"b": None}, None]}),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [["k", 1]]),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([None]), None),
        (
            pa.StringArray.from_buffers(1, pa.array([0, 4], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffb\xed")),
            "a\ufffdb\ufffd",
        ),
        (pa.array([datetime.timedelta(seconds=90)]), "0:01:30"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_metadata_of_any_type_becomes_json(read_table: ReadAll, column: pa.Array, expected: Any) -> None:
    (item,) = read_table(one_row(extra=column))
    assert isinstance(item, RawClip)
    assert item.description.metadata == {"extra": expected}
    json.dumps(item.description.metadata, allow_nan=False).encode("utf-8")


def test_columns_of_one_name_do_not_stop_the_reader(tmp_path: Path, read_all: ReadAll) -> None:
    columns = [pa.array([b"x"]), pa.array(["one"]), pa.array(["two"])]
    pq.write_table(pa.Table.from_arrays(columns, ["audio", "note", "note"]), tmp_path / "a.parquet")
    (item,) = read_all(tmp_path)
    assert (item.data, item.description.metadata) == (b"x", {"note": "two"})
    pq.write_table(pa.Table.from_arrays([columns[0]] * 2, ["audio", "audio"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="2 columns are named audio"):
        read_all(tmp_path)


def test_a_path_column_is_not_overwritten_by_the_path_inside_audio(read_table: ReadAll) -> None:
    audio = pa.array([{"bytes": b"x", "path": "inner.wav"}], HUGGING_FACE_AUDIO)
    (item,) = read_table(pa.table({"audio": audio, "path": ["outer.wav"]}))
    assert (item.name, item.description.metadata) == ("inner.wav", {"path": "outer.wav"})


def test_files_without_rows_give_nothing(tmp_path: Path, read_all: ReadAll) -> None:
    empty = pa.table({"audio": pa.array([], pa.binary())})
    pq.write_table(empty, tmp_path / "a.parquet")
    pq.write_table(one_row(), tmp_path / "b.parquet")
    with pq.ParquetWriter(tmp_path / "c.parquet", empty.schema) as writer:
        writer.write_table(empty)
    assert [item.origin.source for item in read_all(tmp_path)] == [f"{tmp_path}/b.parquet"]


def damaged_file(path: Path, rows: int = 60, row_group_size: int = 20) -> tuple[list[str], int, int]:
    """A Parquet file with one flipped byte in the audio of its second row group; ids, and first and last row of it."""
    ids = [f"clip-{row}" for row in range(rows)]
    audio = [b"%05d" % row * 2000 for row in range(rows)]
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"id": ids, "audio": audio}),
        sink,
        row_group_size=row_group_size,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
        data_page_size=20_000,
    )
    data = bytearray(sink.getvalue())
    data[data.index(audio[row_group_size + 7])] ^= 1
    path.write_bytes(data)
    return ids, row_group_size, 2 * row_group_size


def test_a_flipped_byte_costs_the_rest_of_its_row_group_and_no_more(tmp_path: Path, read_all: ReadAll) -> None:
    path = tmp_path / "a.parquet"
    ids, first, stop = damaged_file(path)
    items = read_all(path)
    assert len(items) == len(ids)
    lost = [row for row, item in enumerate(items) if isinstance(item, Reject)]
    assert lost == list(range(lost[0], stop))
    assert first <= lost[0] <= first + 7
    assert {items[row].reason for row in lost} == {"damaged_source"}
    assert [items[row].origin.key for row in lost] == [str(row) for row in lost]
    kept = [row for row in range(len(ids)) if row not in lost]
    assert [items[row].origin.key for row in kept] == [ids[row] for row in kept]
    assert all(items[row].data == b"%05d" % row * 2000 for row in kept)


def test_a_damaged_range_counts_from_its_own_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    damaged_file(path)
    config = InputConfig(splits={"train": (str(path),)}, clips_per_shard=20)
    specs = plan_shards(config)
    assert [(spec.start, spec.stop) for spec in specs] == [(0, 1), (1, 2), (2, 3)]
    items = [list(read_shard(spec, config)) for spec in specs]
    assert [len(part) for part in items] == [20, 20, 20]
    assert all([item.origin.index for item in part] == list(range(20)) for part in items)
    assert items[2][0].origin.key == "clip-40"
    assert all(isinstance(item, RawClip) for item in items[0] + items[2])


def test_a_file_that_lost_row_groups_since_the_plan_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    damaged_file(path)
    config = InputConfig(splits={"train": (str(path),)}, clips_per_shard=20)
    last = plan_shards(config)[-1]
    pq.write_table(one_row(), path)
    with pytest.raises(SourceChanged, match=r"a\.parquet: changed since it was planned"):
        list(read_shard(last, config))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", b"<html>" * 100, b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_what_is_no_parquet_is_one_reject(tmp_path: Path, read_all: ReadAll, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    (item,) = read_all(tmp_path)
    assert (item.reason, item.origin.key) == ("damaged_source", "")


@pytest.mark.parametrize("lost", [1, 8, 100, 50_000, 150_000])
def test_a_file_that_is_cut_is_one_reject(tmp_path: Path, read_all: ReadAll, lost: int) -> None:
    path = tmp_path / "a.parquet"
    damaged_file(path)
    path.write_bytes(path.read_bytes()[:-lost])
    (item,) = read_all(path)
    assert item.reason == "damaged_source"


def test_a_footer_that_promises_more_rows_than_there_are_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Group:
        num_rows = 2**60

    class Footer:
        num_row_groups = 1

        def row_group(self, group: int) -> Group:
            return Group()

    with pytest.raises(ValueError, match="a row group of 1152921504606846976 rows"):
        parquet._rows_before_groups(Footer())


def test_rows_that_the_footer_promises_and_the_pages_lack_are_rejects(
    tmp_path: Path, read_all: ReadAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"audio": [b"x"] * 5}), path)
    whole = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *args, **options: (part.slice(0, 3) for part in whole(*args, **options))
    )
    assert [getattr(item, "reason", None) for item in read_all(path)] == [None] * 3 + ["damaged_source"] * 2


def test_rows_that_a_dictionary_makes_of_a_few_bytes_are_taken_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, path = 2**22, tmp_path / "bomb.parquet"
    audio = pa.DictionaryArray.from_arrays(pa.array([0] * 48, pa.int32()), pa.array([bytes(size)]))
    pq.write_table(
        pa.table({"audio": audio}), path, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**30
    )
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(parquet, "BATCH_BYTES", size)
    config = InputConfig(splits={"train": (str(path),)})
    (spec,) = plan_shards(config)
    before = peak = pa.total_allocated_bytes()
    for item in read_parquet(spec, config):
        assert isinstance(item, RawClip)
        assert len(item.data) == size
        peak = max(peak, pa.total_allocated_bytes())
    assert peak - before < 6 * size


def test_a_store_that_fails_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"audio": [bytes(10_000)] * 50}), path, compression="none", use_dictionary=False)
    data = path.read_bytes()
    config = InputConfig(splits={"train": (str(path),)})
    (spec,) = plan_shards(config)

    class Flaky(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() < 10_000:  # the footer, at the end, can be read
                raise ConnectionResetError("reset by peer")
            return super().read(size)

    monkeypatch.setattr(LocalFileSystem, "open", lambda *args, **options: Flaky(data))
    with pytest.raises(StorageError, match=r"a\.parquet: cannot read it: reset by peer"):
        list(read_shard(spec, config))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_bytes_overwritten_anywhere_end_in_rows_or_rejects(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]]
) -> None:
    sink = io.BytesIO()
    table = pa.table({"id": [f"clip-{row}" for row in range(12)], "audio": [b"%d" % row for row in range(12)]})
    pq.write_table(table, sink, row_group_size=4, write_page_checksum=True)
    data = bytearray(sink.getvalue())
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.parquet"
    path.write_bytes(data)
    spec = ShardSpec(split="train", format="parquet", uri=str(path), size=0, version="")
    try:
        items = list(read_parquet(spec, InputConfig(splits={"train": (str(path),)})))
    except SourceError:
        return  # the name or type of the audio column was hit
    assert [item.origin.index for item in items] == list(range(len(items)))
    assert {item.reason for item in items if isinstance(item, Reject)} <= READ_REASONS.keys()
