"""How fast a run is over its last minutes, whatever it did before and however many actors it has."""

from __future__ import annotations

import pytest

from pipeline.distributed.throughput import WINDOW_SECONDS, ActorFigures, Throughput


def test_speed_and_busy_share_are_of_the_last_minutes_alone() -> None:
    throughput = Throughput(now=0.0)
    for second in range(0, 1000, 10):  # slow at first
        throughput.add(second, encoded_seconds=second * 1.0, busy_seconds=second * 0.1, actors=1)
    assert throughput.speed == pytest.approx(1.0)
    assert throughput.busy == pytest.approx(0.1)
    for second in range(1000, 2000, 10):
        faster = second - 1000
        throughput.add(second, encoded_seconds=1000 + faster * 50.0, busy_seconds=100 + faster * 0.9, actors=1)
    assert throughput.speed == pytest.approx(50.0)
    assert throughput.busy == pytest.approx(0.9)


def test_the_busy_share_is_of_all_actors_however_their_number_changes() -> None:
    throughput = Throughput(now=0.0)
    throughput.add(10.0, encoded_seconds=0.0, busy_seconds=10.0, actors=2)
    throughput.add(20.0, encoded_seconds=0.0, busy_seconds=30.0, actors=4)
    assert throughput.busy == pytest.approx(30.0 / (2 * 10 + 4 * 10))


def test_a_run_without_actors_is_not_busy_and_has_no_speed() -> None:
    throughput = Throughput(now=5.0)
    assert (throughput.speed, throughput.busy) == (0.0, 0.0)
    throughput.add(5.0, 0.0, 0.0, actors=0)
    assert (throughput.speed, throughput.busy) == (0.0, 0.0)


def test_what_is_kept_does_not_grow() -> None:
    throughput = Throughput(now=0.0)
    for second in range(100_000):
        throughput.add(float(second), float(second), 0.0, actors=1)
    assert len(throughput._moments) <= WINDOW_SECONDS + 2


def test_figures_add_up() -> None:
    assert ActorFigures(1, 2, 3) + ActorFigures(10, 20, 30) == ActorFigures(11, 22, 33)
