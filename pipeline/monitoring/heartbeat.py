"""What a run writes about itself beside its output, for people: who runs it, how far it is, and how it ended.

Each run overwrites one object of its own, `_moss_tok/runs/<run_id>.json`, every few seconds. No run reads it to decide
anything: manifests alone say what is done. A run whose object is old may be dead, stopped or cut off from the store.
Only `repair`, which must not work beside a run, refuses if one seems to be at work.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipeline import storage
from pipeline.dataset.layout import Layout

BEAT_SECONDS = 10.0
SILENT_SECONDS = 6 * BEAT_SECONDS  # a store may be slow, and clocks differ a little
READ_THREADS = 16

RUNNING = "running"
SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Contents of `_moss_tok/runs/<run_id>.json`. Counts are of this run only; times are seconds since 1970, UTC."""

    run_id: str
    host: str
    pid: int
    started_at: float
    moved_at: float
    """When this was written."""
    state: str = RUNNING
    """running, or how the run ended: done, failed, stopped, interrupted or crashed."""
    actors: int = 0
    """Actors that have loaded the model."""
    shards_committed: int = 0
    shards_open: int = 0
    """Shards that an actor is working on."""
    shards_failed: int = 0
    """Shards that were given up."""
    retries: int = 0
    """Attempts at shards after the first attempt at each."""
    audio_seconds: float = 0.0
    """Seconds of audio encoded so far, including open shards."""
    speed: float = 0.0
    """Seconds of audio encoded per second, over the last minutes."""
    busy: float = 0.0
    """Fraction of the last minutes in which the encoders were busy, 0 to 1."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why shards were given up, by id; the first hundred."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Heartbeat:
        """The inverse of `to_bytes`. Raises ValueError for anything else; ignores keys of later versions."""
        try:
            document: dict[str, Any] = json.loads(data)
            return cls(**{item.name: document[item.name] for item in fields(cls) if item.name in document})
        except (ValueError, TypeError) as error:
            raise ValueError(f"not the heartbeat of a run: {error}") from error

    def state_at(self, now: float) -> str:
        """`state`, or "silent" if the run should be running and has not written for SILENT_SECONDS."""
        return SILENT if self.state == RUNNING and now - self.moved_at > SILENT_SECONDS else self.state

    def may_be_at_work(self, now: float) -> bool:
        """Whether the run wrote lately and, if it is of this host, its process exists."""
        return self.state_at(now) == RUNNING and (self.host != socket.gethostname() or _exists(self.pid))


def new_run_id() -> str:
    """A new name for a run: the time at which it began, so that names sort by time, and six random digits."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


def first_beat(run_id: str) -> Heartbeat:
    """The first heartbeat of a run that begins now in this process."""
    now = time.time()
    return Heartbeat(run_id=run_id, host=socket.gethostname(), pid=os.getpid(), started_at=now, moved_at=now)


def publish(layout: Layout, beat: Heartbeat) -> None:
    """Write a heartbeat in place of the last one of its run. Raises StorageError."""
    storage.publish(layout.heartbeat(beat.run_id), beat.to_bytes())


def read_heartbeats(layout: Layout) -> list[Heartbeat]:
    """The heartbeats of all runs on this output, oldest first. Files that are not heartbeats are left out."""
    names = sorted(name for name in storage.list_names(layout.runs) if name.endswith(".json") and name[0] != ".")
    with ThreadPoolExecutor(READ_THREADS) as pool:
        found = pool.map(lambda name: _read(storage.join(layout.runs, name)), names)
        return sorted((beat for beat in found if beat is not None), key=lambda beat: beat.started_at)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only checks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _read(uri: str) -> Heartbeat | None:
    try:
        return Heartbeat.from_bytes(storage.read_bytes(uri))
    except (FileNotFoundError, ValueError):
        return None
