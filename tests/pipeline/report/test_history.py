"""Totals, tries and the time line, from manifests alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.dataset.manifest import ShardManifest
from pipeline.report.history import EXAMPLE_SHARDS, read_history

SHARD = ShardManifest(
    shard_id="0" * 16,
    split="train",
    uri="s3://bucket/a.tar",
    version="1",
    input_size=100,
    fingerprint="f",
    rows=10,
    rejects=2,
    rejects_by_reason={"empty": 2},
    audio_seconds=100.0,
    frames=1250,
    input_bytes=100,
    output_bytes=50,
    sha256="s",
    rejects_bytes=1,
    rejects_sha256="r",
    attempt=1,
    started_at=1000.0,
    finished_at=1010.0,
    seconds={"read": 1.0},
    versions={"torch": "2"},
)


def shards(*times: tuple[float, float], **changes: object) -> list[ShardManifest]:
    return [
        replace(SHARD, shard_id=f"{index:016x}", started_at=start, finished_at=end, **changes)
        for index, (start, end) in enumerate(times)
    ]


def test_throughput_holds_all_the_audio_and_workers_add_up():
    timeline = read_history(shards((1000, 1010), (1000, 1010), (1010, 1020))).timeline(20)
    assert timeline is not None
    np.testing.assert_allclose(timeline.speed[:10], 20, rtol=1e-3)
    np.testing.assert_allclose(timeline.speed[10:], 10, rtol=1e-3)
    assert timeline.speed.sum() * timeline.busy_seconds / 20 == pytest.approx(300, rel=1e-3)
    assert (timeline.started, timeline.finished, timeline.busy_seconds) == (1000, 1020, 20)


def test_a_shard_that_took_no_time_still_counts():
    timeline = read_history(shards((1000, 1000), (1000, 1010))).timeline(10)
    assert timeline is not None
    assert timeline.speed.sum() * timeline.busy_seconds / 10 == pytest.approx(200, rel=1e-3)


def test_the_night_between_two_runs_is_left_out():
    timeline = read_history(shards((1000, 1010), (1010, 1020), (90_000, 90_010))).timeline(30)
    assert timeline is not None
    assert timeline.busy_seconds == pytest.approx(30)
    assert timeline.pauses == [20]
    np.testing.assert_allclose(timeline.speed, 10, rtol=1e-3)


def test_tries_are_counted_and_a_rebuilt_shard_is_on_no_time_line():
    manifests = [*shards((1000, 1010)), *shards((1, 2), attempt=0), *shards((1000, 1010), attempt=3)]
    history = read_history(manifests)
    assert history.attempts == {0: 1, 1: 1, 3: 1}
    timeline = history.timeline(4)
    assert timeline is not None
    assert timeline.started == 1000
    assert history.totals.rows == 30


@pytest.mark.parametrize("times", [(math.nan, 1.0), (5.0, math.inf), (20.0, 10.0), (-5.0, 5.0)])
def test_times_that_make_no_sense_are_no_times(times: tuple[float, float]):
    assert read_history(shards(times)).timeline(4) is None


def test_only_a_few_shards_are_kept_for_examples():
    history = read_history(shards(*[(1000.0, 1010.0)] * 10))
    assert history.shards_by_reason == {"empty": [f"{index:016x}" for index in range(EXAMPLE_SHARDS)]}
