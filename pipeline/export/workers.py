"""Writes the parts of an export, in this process or in several. The files are the same."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.dataset.dataset import Output, read_output
from pipeline.export.buckets import Buckets
from pipeline.export.config import ExportConfig
from pipeline.export.formats import make_format
from pipeline.export.part import write_part
from pipeline.export.selection import RowSelector
from pipeline.export.tokens.tokenizer import tokenizer_of
from pipeline.items import ShardSpec


class WorkerDied(OSError):
    """A process died before it had finished its part."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every process needs to write parts."""

    config: ExportConfig
    root: str
    """Folder of the export."""
    database: Path
    """Database with the candidates for references."""
    buckets: Buckets


class PartWriter:
    """Writes parts in this process."""

    def __init__(self, work: Work, output: Output) -> None:
        self._work = work
        self._output = output
        self._form = make_format(work.config, output.record, work.buckets, tokenizer_of(work.config))
        self._selection = RowSelector(work.config, self._form.need_text, work.database)

    def write(self, spec: ShardSpec) -> None:
        items = self._selection.select(self._output, spec, self._form.need_codes)
        write_part(self._work.root, spec.shard_id, items, self._form, self._work.config.export.file_bytes)

    def close(self) -> None:
        self._selection.close()


def write_parts(work: Work, output: Output, specs: Sequence[ShardSpec]) -> Iterator[None]:
    """Write the parts of these shards; yields after each. The first error is raised once running parts are finished.

    Raises WorkerDied if a process died.
    """
    workers = min(work.config.export.workers, len(specs))
    if workers > 1:
        yield from _in_processes(work, specs, workers)
        return
    writer = PartWriter(work, output)
    try:
        for spec in specs:
            writer.write(spec)
            yield
    finally:
        writer.close()


def _in_processes(work: Work, specs: Sequence[ShardSpec], workers: int) -> Iterator[None]:
    # A forked process would inherit locks of threads: of this process, of Arrow and of the client of the store.
    spawn = multiprocessing.get_context("spawn")
    waiting = iter(specs)
    running: set[Future[None]] = set()
    try:
        with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(work,)) as pool:
            while True:
                running |= {pool.submit(_write, spec) for spec in islice(waiting, 2 * workers - len(running))}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    yield
    except BrokenProcessPool as error:
        raise WorkerDied(
            f"one of {workers} processes that write parts died, perhaps because memory ran out: set a smaller "
            "export.workers; committed parts are kept, and the same command continues"
        ) from error


_writer: PartWriter | None = None
"""The writer of a worker process."""


def _begin(work: Work) -> None:
    global _writer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main process ends the others
    _writer = PartWriter(work, read_output(work.config.dataset.uri))


def _write(spec: ShardSpec) -> None:
    assert _writer is not None
    _writer.write(spec)
