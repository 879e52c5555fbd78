"""Results come in the order of the things, and no more is begun than a few ahead of what is taken."""

from __future__ import annotations

import threading

from pipeline.concurrency import in_order
from tests.support import DEADLINE_SECONDS


def test_results_keep_the_order_however_long_each_takes():
    second_is_done = threading.Event()

    def function(number: int) -> int:
        if number == 0:
            assert second_is_done.wait(DEADLINE_SECONDS)
        if number == 1:
            second_is_done.set()
        return number * number

    assert list(in_order(function, range(20), 3)) == [number * number for number in range(20)]


def test_only_a_few_are_begun_before_they_are_wanted():
    begun: list[int] = []
    results = in_order(begun.append, range(1000), 4)
    next(results)
    assert len(begun) <= 5
    results.close()
