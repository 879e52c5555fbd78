"""Work on a CPU in lanes: as many threads of our own as torch has, each of which computes alone.

A kernel that splits one product or one sum over threads may round differently with other numbers of threads. So no
kernel is ever split: a task runs on one thread from its beginning to its end, and each lane takes the next task when it
is free. What a task computes then cannot depend on the number of lanes. It is also faster on a busy machine, because a
kernel that is split waits, spinning, for its slowest thread. The number of lanes is the caller's
`torch.get_num_threads()`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier, Lock
from typing import TypeVar

import torch

Result = TypeVar("Result")


def run_in_lanes(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run tasks that share no data, and return their results in order. If some raise, the error of the first is raised,
    once all have ended."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [task() for task in tasks]
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def in_the_callers_mode(task: Callable[[], Result]) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients and not inference):
            return task()

    lanes = _lanes.of(threads)
    futures = [lanes.submit(in_the_callers_mode, task) for task in tasks]
    wait(futures)
    return [future.result() for future in futures]


class _Lanes:
    """The threads of this process. They are kept, and made again if their number changes or the process was forked."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made_for: tuple[int, int] | None = None
        self._pool: ThreadPoolExecutor | None = None

    def of(self, threads: int) -> ThreadPoolExecutor:
        with self._lock:
            wanted = (os.getpid(), threads)
            if self._pool is None or self._made_for != wanted:
                # The old threads end when nobody waits for their tasks any more.
                self._pool, self._made_for = _start(threads), wanted
            return self._pool


def _start(threads: int) -> ThreadPoolExecutor:
    ready = Barrier(threads + 1)

    def alone() -> None:
        torch.get_num_threads()  # torch sets a thread's number when it first asks for it, and would undo the next line
        torch.set_num_threads(1)  # of this thread; and of threads that are yet to begin, which is undone below
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="moss-tok-lane", initializer=alone)
    for _ in range(threads):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(threads)
    return pool


_lanes = _Lanes()
