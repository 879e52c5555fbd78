"""Averages: over what has a value, with the rest counted, and the same for the same seed."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from pipeline.evaluate.results import ClipValues, to_results
from pipeline.evaluate.summary import summarize
from pipeline.parquet import read_table


def row(clip: int, subject: str, value: float | None, bits_per_second: float = 1000.0) -> ClipValues:
    return ClipValues(
        id=f"{clip:016x}-00000000",
        source="a.tar",
        key=str(clip),
        duration=2.0,
        subject=subject,
        num_quantizers=8,
        bits_per_second=bits_per_second,
        values={} if value is None else {"mel": value},
        undefined={"mel": "silent"} if value is None else {},
    )


def table(*rows: ClipValues) -> pa.Table:
    return read_table(io.BytesIO(to_results(rows, ["mel"])))


def test_a_clip_without_a_value_is_counted_and_not_averaged_in():
    summary = summarize(table(row(0, "a", 1.0), row(1, "a", 3.0), row(2, "a", None)), ["mel"], seed=0)
    (point,) = summary.points
    assert point.estimates["mel"].mean == 2.0
    assert point.estimates["mel"].clips == 2
    assert point.undefined == {"mel": {"silent": 1}}


def test_the_interval_holds_the_mean_and_narrows_with_more_clips():
    generator = np.random.default_rng(1)
    few, many = (
        summarize(table(*(row(i, "a", float(v)) for i, v in enumerate(generator.normal(5, 1, n)))), ["mel"], 0)
        for n in (10, 1000)
    )
    widths = []
    for summary in (few, many):
        estimate = summary.points[0].estimates["mel"]
        assert estimate.low <= estimate.mean <= estimate.high
        widths.append(estimate.high - estimate.low)
    assert widths[1] == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.2)
    assert widths[1] < widths[0] / 3


def test_differences_are_of_pairs():
    """Two codecs that differ by 0.1 on clips that differ a lot: the difference is certain, the means are not."""
    values = np.random.default_rng(2).normal(5, 3, 50)
    rows = [row(i, name, float(v + d)) for name, d in (("a", 0.0), ("b", 0.1)) for i, v in enumerate(values)]
    summary = summarize(table(*rows), ["mel"], seed=0)
    (difference,) = summary.differences
    assert (difference.first[0], difference.second[0]) == ("a", "b")
    assert difference.estimate.low == pytest.approx(0.1)
    assert difference.estimate.high == pytest.approx(0.1)


def test_codecs_of_other_bit_rates_are_not_compared():
    summary = summarize(table(row(0, "a", 1.0), row(0, "b", 2.0, bits_per_second=4000.0)), ["mel"], seed=0)
    assert summary.differences == []


def test_a_clip_has_one_duration_however_many_rows_it_has():
    summary = summarize(table(row(0, "a", 1.0), row(0, "b", 2.0)), ["mel"], seed=0)
    assert (summary.clips, summary.seconds) == (1, 2.0)


def test_rejects_are_counted_by_reason():
    rejected = ClipValues(id="0" * 16 + "-00000009", source="a.tar", key="9", reject_reason="truncated")
    summary = summarize(table(row(0, "a", 1.0), rejected), ["mel"], seed=0)
    assert summary.rejects == {"truncated": 1}
    assert summary.clips == 2


def test_the_same_rows_and_seed_give_the_same_figures():
    rows = [row(i, "a", float(i)) for i in range(20)]
    assert summarize(table(*rows), ["mel"], seed=3) == summarize(table(*rows), ["mel"], seed=3)
    assert to_results(rows, ["mel"]) == to_results(rows, ["mel"])
