"""Runs a function on many tasks on a Ray cluster. A task whose process dies is retried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline import signals
from pipeline.config import ClusterConfig
from pipeline.distributed.cluster import connect, live_nodes, total

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_ATTEMPTS = 3
WAIT_SECONDS = 1.0


class TaskFailed(RuntimeError):
    """A task raised an error, or its process died, in each of MAX_ATTEMPTS attempts."""


def map_on_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], cluster: ClusterConfig, *, gpu: bool | None
) -> Iterator[Result]:
    """Run `function` on each task, one CPU (and one GPU with `gpu`; None means if the cluster has any) each.

    On CPUs processes stay between tasks. Ray ends those on GPUs after each, to have the memory back.

    Yields results in the order in which they are ready. A failed task is retried, up to MAX_ATTEMPTS attempts: its
    process or node may be gone. Raises TaskFailed, ClusterError and KeyboardInterrupt.
    """
    connect(cluster)
    try:
        yield from _map(function, tasks, total(live_nodes(), "GPU") > 0 if gpu is None else gpu)
    finally:
        ray.shutdown()


def _map(function: Callable[[Task], Result], tasks: Sequence[Task], gpu: bool) -> Iterator[Result]:
    remote = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_retries=0)(function)
    ahead = max(2, 2 * int(total(live_nodes(), "GPU" if gpu else "CPU")))
    waiting = [(task, 1) for task in reversed(tasks)]
    running: dict[Any, tuple[Task, int]] = {}
    while waiting or running:
        while waiting and len(running) < ahead:
            task, attempt = waiting.pop()
            running[remote.remote(task)] = (task, attempt)
        signals.check()
        ready, _ = ray.wait(list(running), timeout=WAIT_SECONDS)
        for reference in ready:
            task, attempt = running.pop(reference)
            try:
                result = cast("Result", ray.get(reference))
            except RayError as error:
                if attempt == MAX_ATTEMPTS:
                    cause = error.cause if isinstance(error, RayTaskError) and error.cause else error
                    raise TaskFailed(f"a task failed {attempt} times: {cause}") from error
                waiting.append((task, attempt + 1))
            else:
                yield result
