"""Measures CPU time and memory of the processes of a run from outside, by kind of process."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

KINDS = {
    "ray::_prepare": "reader",
    "ray::StandIn": "actor",
    "ray::Tokenizer": "actor",
    "raylet": "raylet",
}
IDLE = "idle worker"
OTHER = "other Ray"


@dataclass(slots=True)
class Usage:
    """The usage of one process."""

    kind: str
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """Moments of the monotonic clock, each with the CPU seconds used until then."""
    peak_private: int = 0
    """Bytes of memory, without shared memory, which is mostly the object store."""

    def cpu_seconds(self, since: float, until: float) -> float:
        """CPU seconds between two moments."""
        moments, seconds = zip(*self.cpu, strict=True)
        return float(np.interp(until, moments, seconds) - np.interp(since, moments, seconds))


class Watch:
    """Measures this process and its descendants a few times per second, in a thread."""

    def __init__(self, period: float = 0.25) -> None:
        self._period = period
        self._ended = threading.Event()
        self._main = time.pthread_getcpuclockid(threading.get_ident())
        self._known: dict[int, psutil.Process] = {}
        self._usage: dict[int, Usage] = {}
        self.driver = Usage("driver, main thread")
        self.peak_store = 0
        """Peak use of the object store in bytes."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def by_kind(self) -> dict[str, list[Usage]]:
        """The processes that were busy, by kind."""
        kinds: dict[str, list[Usage]] = {}
        for usage in self._usage.values():
            if usage.kind != IDLE:
                kinds.setdefault(usage.kind, []).append(usage)
        return kinds

    def _run(self) -> None:
        me, store = psutil.Process(), _ObjectStore()
        while not self._ended.wait(self._period):
            self.driver.cpu.append((time.monotonic(), time.clock_gettime(self._main)))
            self._look(me, "driver")
            for found in me.children(recursive=True):
                process = self._known.setdefault(found.pid, found)
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, IndexError):
                    self._look(process, _kind(process.cmdline()[0]))
            with contextlib.suppress(Exception):  # Ray is starting or ending
                self.peak_store = max(self.peak_store, store.bytes_in_use())

    def _look(self, process: psutil.Process, kind: str) -> None:
        usage = self._usage.setdefault(process.pid, Usage(kind))
        if usage.kind in (IDLE, OTHER):  # Ray sets the title of a worker when it gets work
            usage.kind = kind
        times = process.cpu_times()
        memory: Any = process.memory_info()
        usage.cpu.append((time.monotonic(), times.user + times.system))
        usage.peak_private = max(usage.peak_private, memory.rss - memory.shared)


def _kind(command: str) -> str:
    name = command.rpartition("/")[2]
    if kind := next((kind for title, kind in KINDS.items() if name.startswith(title)), None):
        return kind
    return IDLE if name.startswith("ray::") else OTHER


class _ObjectStore:
    """Ray's object store on this node."""

    def __init__(self) -> None:
        self._state: Any = None

    def bytes_in_use(self) -> int:
        """Bytes in use; 0 while Ray is not running."""
        if not ray.is_initialized():
            return 0
        if self._state is None:
            self._state = get_state_from_address(  # type: ignore[no-untyped-call]
                ray.get_runtime_context().gcs_address
            )
        reply = get_memory_info_reply(self._state)  # type: ignore[no-untyped-call]
        return int(reply.store_stats.object_store_bytes_used)
