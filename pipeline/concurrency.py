"""A function over many things, a few at a time, its results in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def in_order(function: Callable[[Thing], Result], things: Iterable[Thing], threads: int) -> Iterator[Result]:
    """`map` in so many threads. Unlike that of an executor it holds no more than `threads` results ahead, and takes no
    more of the things: of a million manifests most wait outside."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for thing in things:
            pending.append(pool.submit(function, thing))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
