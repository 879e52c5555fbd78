"""Totals: sums over manifests, and figures that people can read."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest

from pipeline.codecs.machine import NOT_RECORDED
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.totals import Totals, describe
from pipeline.formatting import format_bytes, format_seconds, lines_of


def manifest_of(shard_id: str, split: str, rows: int, reasons: dict[str, int]) -> ShardManifest:
    return ShardManifest(
        shard_id=shard_id,
        split=split,
        uri="a.tar",
        version="1",
        input_size=rows * 1000,
        fingerprint="0",
        rows=rows,
        rejects=sum(reasons.values()),
        rejects_by_reason=reasons,
        audio_seconds=rows * 10.0,
        frames=rows * 125,
        input_bytes=rows * 1000,
        output_bytes=rows * 100,
        sha256="",
        rejects_bytes=50,
        rejects_sha256="cd",
        attempt=1,
        started_at=0.0,
        finished_at=1.0,
        seconds={"read": 0.5, "encode": 1.5} if rows else {"read": 0.25},
        versions={},
    )


SHARDS = [
    manifest_of("a", "train", 1000, {"empty": 1}),
    manifest_of("b", "test", 20, {"empty": 2, "truncated": 1}),
    manifest_of("c", "train", 0, {}),
]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_totals_are_sums_in_any_order(order: tuple[int, ...]) -> None:
    totals = Totals()
    for index in order:
        totals.add(Totals.of(SHARDS[index]))
    assert totals == Totals(
        shards=3,
        rows=1020,
        frames=127_500,
        audio_seconds=10_200.0,
        input_bytes=1_020_000,
        output_bytes=102_000,
        rejects=4,
        rejects_by_reason=totals.rejects_by_reason,
        rows_by_split=totals.rows_by_split,
        rejects_by_split=totals.rejects_by_split,
        seconds_by_split=totals.seconds_by_split,
        seconds={"read": 1.25, "encode": 3.0},
        shards_by_machine=Counter({NOT_RECORDED: 3}),
    )
    assert totals.rejects_by_reason == {"empty": 3, "truncated": 1}
    assert totals.rows_by_split == {"train": 1000, "test": 20}
    assert totals.rejects_by_split == {"train": 1, "test": 3}
    assert sum(totals.seconds_by_split.values()) == totals.audio_seconds
    assert totals.hours == pytest.approx(2.8333, abs=1e-4)


def test_adding_does_not_change_what_was_added() -> None:
    one, other = Totals.of(SHARDS[0]), Totals.of(SHARDS[1])
    one.add(other)
    assert other == Totals.of(SHARDS[1])
    assert SHARDS[0].rejects_by_reason == {"empty": 1}
    assert SHARDS[0].seconds == {"read": 0.5, "encode": 1.5}


def test_figures_for_people_name_each_reason() -> None:
    totals = Totals()
    for shard in SHARDS:
        totals.add(Totals.of(shard))
    assert describe(totals) == {
        "shards": "3",
        "clips": "1,020",
        "hours": "2.833",
        "frames": "127,500",
        "rejects": "4 (empty 3, truncated 1)",
        "read": "1.0 MB",
        "written": "102.0 kB",
    }
    assert describe(Totals())["rejects"] == "0"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (2e12, "2.0 TB"),
        (3e15, "3.0 PB"),
        (1e18, "1000.0 PB"),
    ],
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (360_000, "100.0 h"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_columns_are_aligned() -> None:
    assert lines_of({"a": "1", "longer": "2"}) == "  a       1\n  longer  2"
