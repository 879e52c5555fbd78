"""Duplicates: clips of equal waveforms, found in any number of divisions, and lists of them."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import Output, read_output
from pipeline.verify import duplicates as module
from pipeline.verify.duplicates import Duplicates, find_duplicates, listing_bytes
from tests.pipeline.conftest import Tokenized
from tests.support import rows


@pytest.fixture(scope="module")
def output(tokenized: Tokenized) -> Output:
    return read_output(str(tokenized.output))


@pytest.fixture(scope="module")
def expected(tokenized: Tokenized) -> list[list[dict[str, Any]]]:
    """Groups of equal rows, by the plainest of means."""
    groups = defaultdict(list)
    for row in rows(tokenized.output):
        groups[row["audio_xxh3"], row["num_samples"]].append(row)
    return [sorted(group, key=lambda row: row["id"]) for group in groups.values() if len(group) > 1]


def listed(duplicates: Duplicates) -> list[dict[str, Any]]:
    return [row for batch in duplicates.batches() for row in batch]


def test_copies_are_found_in_other_shards_and_formats(output: Output, expected: list[list[dict[str, Any]]]):
    duplicates = find_duplicates(output)
    assert (duplicates.rows, duplicates.groups, duplicates.to_drop) == (7, 1, 2)
    (group,) = expected
    assert [row["id"] for row in listed(duplicates)] == [row["id"] for row in group]
    assert [row["action"] for row in listed(duplicates)] == ["keep", "drop", "drop"]
    assert {row["key"] for row in listed(duplicates)} == {"vm-sorry.mp3", "copy.mp3", "b"}
    assert {row["copies"] for row in listed(duplicates)} == {3}
    assert duplicates.wasted_seconds == pytest.approx(2 * group[0]["duration"])


def test_how_the_rows_are_divided_changes_nothing(output: Output, monkeypatch: pytest.MonkeyPatch):
    whole = find_duplicates(output)
    monkeypatch.setattr(module, "ROWS_HELD", 2)
    for size in (1, 2, 3):
        divided = find_duplicates(output, rows_per_division=size)
        assert divided.listing.equals(whole.listing)
        assert divided.rows == whole.rows


def test_groups_are_listed_largest_first_and_then_by_id(output: Output, monkeypatch: pytest.MonkeyPatch):
    """With hashes cut to a digit many clips are alike: groups of several sizes."""
    original = module.read_columns

    def alike(*arguments: Any) -> Any:
        for batch in original(*arguments):
            short = [f"{digits[0]}{'0' * 31}" for digits in batch["audio_xxh3"].to_pylist()]
            rest = batch.to_pydict() | {"audio_xxh3": short, "num_samples": [1] * len(short)}
            yield pa.RecordBatch.from_pydict(rest, schema=batch.schema)

    monkeypatch.setattr(module, "read_columns", alike)
    listing = listed(find_duplicates(output, rows_per_division=2))
    groups = [[row["id"] for row in listing if row["group"] == number] for number in range(listing[-1]["group"] + 1)]
    assert all(group == sorted(group) for group in groups)
    assert groups == sorted(groups, key=lambda group: (-len(group), group[0]))
    assert [row["group"] for row in listing] == sorted(row["group"] for row in listing)
    assert sum(row["action"] == "keep" for row in listing) == len(groups)


def test_the_listing_is_written_for_programs_and_for_exports(output: Output):
    duplicates = find_duplicates(output)
    lines = [json.loads(line) for line in listing_bytes(duplicates, "a.jsonl").splitlines()]
    assert lines == listed(duplicates)
    assert {"id", "source", "key", "action"} <= lines[0].keys()
    assert pq.read_table(io.BytesIO(listing_bytes(duplicates, "a.parquet"))).to_pylist() == lines
    dropped = listing_bytes(duplicates, "a.txt").decode().split()
    assert dropped == [line["id"] for line in lines if line["action"] == "drop"]
    with pytest.raises(ValueError, match=r"ends in \.jsonl, \.parquet or"):
        listing_bytes(duplicates, "a.csv")


def test_an_output_without_copies_has_an_empty_listing(output: Output):
    found = find_duplicates(Output(output.layout, output.record, output.specs, done=set()))
    assert (found.rows, found.groups, found.to_drop, found.wasted_seconds) == (0, 0, 0, 0.0)
    assert listing_bytes(found, "a.jsonl") == b""
