"""Helpers for threads and futures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def in_order(function: Callable[[Thing], Result], things: Iterable[Thing], threads: int) -> Iterator[Result]:
    """`map` with `threads` threads.

    Unlike `Executor.map` it holds at most `threads` results ahead, and takes no more things than that: of a million
    manifests most are not even asked for yet.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for thing in things:
            pending.append(pool.submit(function, thing))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def completed(result: Result) -> Future[Result]:
    """A future that has its result already."""
    future: Future[Result] = Future()
    future.set_result(result)
    return future
