"""Start the processes that train together, and end them together."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from moss_tok.training.loop import Run, run_training
from moss_tok.training.recipe import Recipe


class WorkerFailedError(RuntimeError):
    """A training process ended with an error; its own message stands above."""


def train(recipe: Recipe, run: Run, processes: int) -> None:
    """Train in `processes` processes of one thread each, or in this one if there is only one.

    Raises WorkerFailedError if one of them fails: the others are then ended too. Raises KeyboardInterrupt after an
    interrupt, once the checkpoint is written; a second interrupt does not wait for that.
    """
    if recipe.batch_size % processes:
        raise ValueError(f"a batch of {recipe.batch_size} clips cannot be split over {processes} processes")
    if processes > 1 and run.device != "cpu":
        raise ValueError(f"several processes train on a CPU; {run.device} takes one")
    if processes == 1:
        run_training(recipe, run)
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "meeting"
        workers = [
            context.Process(target=_work, args=(recipe, run, rank, processes, place)) for rank in range(processes)
        ]
        for worker in workers:
            worker.start()
        try:
            _wait(workers)
        except KeyboardInterrupt:
            # A terminal tells all processes, `kill` only this one.
            for worker in workers:
                if worker.pid is not None and worker.is_alive():
                    os.kill(worker.pid, signal.SIGINT)
            _wait(workers)
            raise
        finally:
            for worker in workers:
                worker.kill()  # one that waits for another would not hear a SIGTERM
                worker.join()


def _wait(workers: Sequence[BaseProcess]) -> None:
    running = list(workers)
    while running:
        ended = wait([worker.sentinel for worker in running])
        for worker in [worker for worker in running if worker.sentinel in ended]:
            running.remove(worker)
            worker.join()
            if worker.exitcode:
                raise WorkerFailedError(f"a training process ended with exit status {worker.exitcode}")


def _work(recipe: Recipe, run: Run, rank: int, size: int, place: Path) -> None:
    torch.set_num_threads(1)
    with contextlib.suppress(KeyboardInterrupt):  # the first process says so
        run_training(recipe, run, rank, size, place)


def default_processes(device: str, batch_size: int) -> int:
    """A process for every core that this process may use, as far as a batch can be split evenly; one on a GPU."""
    cores = 1 if device != "cpu" else len(os.sched_getaffinity(0))
    return max(count for count in range(1, min(cores, batch_size) + 1) if batch_size % count == 0)
