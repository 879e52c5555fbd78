"""Arrow streams: each row once, and what is cut or changed is a reject and never a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.input_config import InputConfig
from pipeline.items import RawClip, Reject, ShardSpec
from pipeline.steps.plan import PlanError, plan_shards
from pipeline.steps.read.arrow import read_arrow
from pipeline.steps.read.rows import SourceError
from pipeline.steps.reject_reasons import READ_REASONS

ReadAll = Callable[..., Any]
BATCHES, ROWS = 3, 5


def write(path: Path, column: str = "audio") -> bytes:
    """A stream of three batches of five rows."""
    sink = pa.BufferOutputStream()
    names = [f"clip-{row}" for row in range(BATCHES * ROWS)]
    table = pa.table({"id": names, column: [name.encode() * 20 for name in names], "text": names})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    path.write_bytes(data)
    return data


def test_each_row_comes_out_once_with_its_fields(tmp_path: Path, read_all: ReadAll) -> None:
    write(tmp_path / "data-00000-of-00001.arrow")
    (tmp_path / "state.json").write_text("{}")
    items = read_all(tmp_path)
    assert [item.origin.key for item in items] == [f"clip-{row}" for row in range(BATCHES * ROWS)]
    assert all(item.data == item.origin.key.encode() * 20 for item in items)
    assert items[7].description.text == "clip-7"


def test_a_stream_that_is_cut_between_two_batches_says_so(tmp_path: Path, read_all: ReadAll) -> None:
    path = tmp_path / "data.arrow"
    data = write(path)
    lengths = set()
    for size in range(len(data) - 8, 0, -17):
        path.write_bytes(data[:size])
        items = read_all(path)
        lengths.add(len(items))
        assert isinstance(items[-1], Reject)
        assert items[-1].reason == "damaged_source"
        assert all(isinstance(item, RawClip) for item in items[:-1])
    assert lengths == {1, ROWS + 1, 2 * ROWS + 1, 3 * ROWS + 1}


def test_without_audio_the_columns_are_named(tmp_path: Path, read_all: ReadAll) -> None:
    write(tmp_path / "data.arrow", column="sound")
    with pytest.raises(SourceError, match="no column audio among id, sound, text"):
        read_all(tmp_path)
    assert len(read_all(tmp_path, audio_column="sound")) == BATCHES * ROWS


@pytest.mark.parametrize(
    "data", [b"", b"ARROW1\0\0", b"<html>" * 100, b"\xff" * 64, b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 2]
)
def test_what_is_no_arrow_stream_is_one_reject(tmp_path: Path, read_all: ReadAll, data: bytes) -> None:
    (tmp_path / "a.arrow").write_bytes(data)
    (item,) = read_all(tmp_path)
    assert item.reason == "damaged_source"


def test_the_file_format_of_arrow_is_told_from_a_damaged_stream(tmp_path: Path, read_all: ReadAll) -> None:
    table = pa.table({"audio": [b"data"]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    (reject,) = read_all(tmp_path)
    assert "has Arrow's file format" in reject.message


def test_a_folder_of_nothing_but_caches_has_no_clips(tmp_path: Path) -> None:
    write(tmp_path / "cache-0123.arrow")
    with pytest.raises(PlanError, match="no clips in"):
        plan_shards(InputConfig(splits={"train": (str(tmp_path),)}))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_bytes_overwritten_anywhere_end_in_rows_or_rejects(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.arrow"
    data = bytearray(write(path))
    for place, value in changes:
        data[int(place * len(data))] = value
    path.write_bytes(data)
    spec = ShardSpec(split="train", format="arrow", uri=str(path), size=len(data), version="")
    try:
        items = list(read_arrow(spec, InputConfig(splits={"train": (str(path),)})))
    except SourceError:
        return  # the name or type of the audio column was hit
    assert [item.origin.index for item in items] == list(range(len(items)))
    assert {item.reason for item in items if isinstance(item, Reject)} <= READ_REASONS.keys()
