"""Rows by id and by range: the right ones, and no more is read than holds them."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.dataset.dataset import Output, read_output
from pipeline.loading.rows import RowNotFound, RowQuery, select_rows
from tests.pipeline.conftest import Tokenized


@pytest.fixture(scope="module")
def output(tokenized: Tokenized) -> Output:
    return read_output(str(tokenized.output))


@pytest.fixture(scope="module")
def everything(output: Output) -> list[dict[str, Any]]:
    """All rows in the order of the plan, as Arrow reads them."""
    return [row for spec in output.specs for row in pq.read_table(output.layout.data(spec)).to_pylist()]


def ids_of(output: Output, **query: Any) -> list[str]:
    count, rows = select_rows(output, RowQuery(**query), 1)
    ids = [row.clip_id for row in rows]
    assert len(ids) == count
    return ids


def test_a_row_holds_the_first_layers_of_its_clip(output: Output, everything: list[dict[str, Any]]):
    expected = everything[3]
    _, rows = select_rows(output, RowQuery(ids=(expected["id"],)), 5)
    (row,) = rows
    assert (row.clip_id, row.num_samples, row.sample_rate) == (expected["id"], expected["num_samples"], 24_000)
    assert row.codes.dtype == np.int16
    assert row.codes.tolist() == [expected[schema.layer_column(layer)] for layer in range(5)]
    (whole,) = select_rows(output, RowQuery(ids=(expected["id"],)))[1]
    assert whole.codes.shape == (32, expected["num_frames"])


def test_every_range_is_that_of_the_plans_order(output: Output, everything: list[dict[str, Any]]):
    ids = [row["id"] for row in everything]
    for start, stop in itertools.product(range(len(ids) + 2), [*range(len(ids) + 2), None]):
        assert ids_of(output, start=start, stop=stop) == ids[start:stop], (start, stop)


def test_shards_and_splits_are_whole_and_may_be_cut(output: Output, everything: list[dict[str, Any]]):
    shards = {spec.shard_id: spec.split for spec in output.specs}
    for split in ("train", "test"):
        expected = [row["id"] for row in everything if shards[row["id"].partition("-")[0]] == split]
        assert ids_of(output, split=split) == expected
    two = [output.specs[0].shard_id, output.specs[1].shard_id]
    expected = [row["id"] for row in everything if row["id"].partition("-")[0] in two]
    assert ids_of(output, shards=tuple(two)) == expected
    assert ids_of(output, shards=tuple(two), start=1, stop=4) == expected[1:4]


def test_ids_may_come_in_any_order_and_twice(output: Output, everything: list[dict[str, Any]]):
    ids = [row["id"] for row in everything]
    assert sorted(ids_of(output, ids=(*reversed(ids), ids[0]))) == sorted(ids)


def test_other_columns_and_row_groups_are_not_read(tokenized: Tokenized, tmp_path: Path):
    copy = Path(shutil.copytree(tokenized.output, tmp_path / "codes"))
    output = read_output(str(copy))
    path = Path(
        next(
            output.layout.data(spec)
            for spec in output.specs
            if pq.ParquetFile(output.layout.data(spec)).num_row_groups > 1
        )
    )
    footer = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    wanted = ("id", "num_samples", "sample_rate", "codes_00.list.element")
    for group in range(footer.num_row_groups):
        for number in range(footer.num_columns):
            chunk = footer.row_group(group).column(number)
            if chunk.path_in_schema in wanted and group == 0:
                continue
            if chunk.path_in_schema == "id":
                continue  # which tells where a row is
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)
    first = pq.ParquetFile(path).read_row_group(0, columns=["id"])["id"].to_pylist()
    assert ids_of(output, ids=(first[1],)) == [first[1]]
    assert ids_of(output, shards=(path.stem,), stop=2) == first
    with pytest.raises(ValueError, match=r"damaged: .*moss-tok verify"):
        ids_of(output, shards=(path.stem,))


def test_what_is_not_there_is_named(output: Output, tokenized: Tokenized):
    rejects = [row for path in tokenized.output.glob("rejects/**/*.parquet") for row in pq.read_table(path).to_pylist()]
    with pytest.raises(RowNotFound, match="no shard of this id"):
        ids_of(output, ids=("nobody-00000000",))
    with pytest.raises(RowNotFound, match="not among the rows of its shard: it was rejected") as error:
        ids_of(output, ids=(rejects[0]["id"],))
    assert rejects[0]["message"] in str(error.value)
    with pytest.raises(RowNotFound, match="not among the rows"):
        ids_of(output, ids=(f"{output.specs[0].shard_id}-00000099",))
    with pytest.raises(RowNotFound, match="no split of this name: there are train, test"):
        ids_of(output, split="dev")
    with pytest.raises(RowNotFound, match="no shard of this id"):
        ids_of(output, shards=("nobody",))
    for layers in (0, 33):
        with pytest.raises(ValueError, match="the output has 1 to 32"):
            select_rows(output, RowQuery(), layers)


def test_rows_of_a_shard_that_is_not_committed_are_not_there_yet(tokenized: Tokenized, tmp_path: Path):
    copy = Path(shutil.copytree(tokenized.output, tmp_path / "codes"))
    manifest = next((copy / "_moss_tok" / "shards").iterdir())
    manifest.unlink()
    output = read_output(str(copy))
    with pytest.raises(RowNotFound, match="not committed yet"):
        ids_of(output, ids=(f"{manifest.stem}-00000000",))
    with pytest.raises(RowNotFound, match="not committed yet"):
        ids_of(output, shards=(manifest.stem,))
    assert not any(clip_id.startswith(manifest.stem) for clip_id in ids_of(output))
