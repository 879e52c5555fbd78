"""Some columns of a Parquet object: the values that are there, from its footer and their own pages alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parquet, storage
from pipeline.parquet import DamagedTable, read_columns
from pipeline.storage import ObjectInfo

ROWS = 1000


def table() -> pa.Table:
    random = np.random.default_rng(0)
    lists = [random.integers(0, 1024, count).tolist() for count in random.integers(0, 40, ROWS)]
    return pa.table(
        {
            "id": [f"clip-{row}" for row in range(ROWS)],
            "codes": pa.array(lists, pa.list_(pa.int16())),
            "text": [None if row % 3 else f"text {row}" for row in range(ROWS)],
            "noise": random.random(ROWS),
        }
    )


def write(path: Path, row_group_size: int = ROWS) -> ObjectInfo:
    pq.write_table(table(), path, row_group_size=row_group_size, write_page_checksum=True)
    info = storage.stat(str(path))
    assert info is not None
    return info


@pytest.mark.parametrize("names", [["id"], ["text", "codes"], ["noise", "id", "codes"]])
@pytest.mark.parametrize("row_group_size", [1, 7, ROWS])
def test_columns_come_in_the_order_asked_for_with_their_values(tmp_path: Path, row_group_size: int, names: list[str]):
    info = write(tmp_path / "a.parquet", row_group_size)
    read = pa.Table.from_batches(list(read_columns(info, names)))
    assert read.column_names == names
    assert read.to_pylist() == table().select(names).to_pylist()


def test_a_footer_larger_than_the_first_read_is_read_whole(tmp_path: Path):
    info = write(tmp_path / "a.parquet", row_group_size=1)
    assert pq.read_metadata(tmp_path / "a.parquet").serialized_size > parquet.TAIL_BYTES
    assert sum(batch.num_rows for batch in read_columns(info, ["id"])) == ROWS


def test_batches_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = write(tmp_path / "a.parquet")
    monkeypatch.setattr(parquet, "BATCH_BYTES", 2000)
    batches = list(read_columns(info, ["codes"]))
    assert len(batches) > 10
    assert pa.Table.from_batches(batches).to_pylist() == table().select(["codes"]).to_pylist()


def test_pages_of_other_columns_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = write(tmp_path / "a.parquet")
    monkeypatch.setattr(parquet, "GAP_BYTES", 0)
    monkeypatch.setattr(parquet, "TAIL_BYTES", 4000)
    fetched: list[tuple[int, int]] = []
    original = storage.read_ranges
    monkeypatch.setattr(storage, "read_ranges", lambda uri, ranges: fetched.extend(ranges) or original(uri, ranges))
    assert len(list(read_columns(info, ["id", "noise"]))) > 0
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(0)
    codes = group.column(1)
    first = codes.dictionary_page_offset
    last = first + codes.total_compressed_size
    assert not any(start < last and stop > first for start, stop in fetched)
    assert len(fetched) == 3, "the footer, and a range for each column"


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path):
    with pytest.raises(KeyError, match="no column speech: it has id, codes, text, noise"):
        list(read_columns(write(tmp_path / "a.parquet"), ["speech"]))


@pytest.mark.parametrize("data", [b"PAR1", b"<html>" * 1000, b"PAR1" + b"\xff" * 2000 + b"PAR1", b"\0" * 8])
def test_what_is_no_parquet_is_damaged(tmp_path: Path, data: bytes):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DamagedTable, match=r"a\.parquet"):
        list(read_columns(ObjectInfo(str(tmp_path / "a.parquet"), len(data), ""), ["id"]))


def test_an_object_that_is_gone_is_missing(tmp_path: Path):
    info = write(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        list(read_columns(info, ["id"]))
