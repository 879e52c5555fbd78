"""How far an output is, read from the output only: beside a run, after the run died, from any machine.

Manifests say what is done. The heartbeats of runs say who works on the rest, how fast, and what failed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.dataset import manifest
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.totals import Totals, describe, describe_machines
from pipeline.formatting import format_seconds
from pipeline.monitoring.heartbeat import RUNNING, SILENT, Heartbeat, read_heartbeats

SHOWN_FAILURES = 10


@dataclass(frozen=True, slots=True)
class Status:
    """An output at one moment."""

    output: Output
    totals: Totals
    """Totals of the committed shards."""
    complete: bool
    runs: Sequence[Heartbeat]
    """Heartbeats of all runs on this output, oldest first."""
    looked_at: float
    """Seconds since 1970, UTC."""
    bytes_done: int
    """Bytes of input of the committed shards, as listed in the plan."""

    @property
    def alive(self) -> list[Heartbeat]:
        """The runs that are at work now."""
        return [run for run in self.runs if run.state_at(self.looked_at) == RUNNING]

    @property
    def last(self) -> list[Heartbeat]:
        """The runs that are at work or, if none is, the one that wrote last."""
        return self.alive or sorted(self.runs, key=lambda run: run.moved_at)[-1:]

    @property
    def shards(self) -> dict[str, int]:
        """Number of shards by state. A shard that the last run gave up is failed until another run retries it."""
        failed = sum(run.shards_failed for run in self.last)
        planned, committed = len(self.output.specs), self.totals.shards
        is_open = min(sum(run.shards_open for run in self.alive), planned - committed)
        failed = min(failed, planned - committed - is_open)
        waiting = planned - committed - is_open - failed
        return {"committed": committed, "open": is_open, "waiting": waiting, "failed": failed}

    @property
    def speed(self) -> float:
        """Seconds of audio encoded per second now, by all runs."""
        return sum(run.speed for run in self.alive)

    @property
    def seconds_left(self) -> float | None:
        """Estimate at this speed, with as much audio per byte as so far; None without a speed or a committed shard."""
        if not self.speed or not self.bytes_done:
            return None
        bytes_left = sum(spec.size for spec in self.output.specs) - self.bytes_done
        return self.totals.audio_seconds / self.bytes_done * bytes_left / self.speed

    def to_json(self) -> dict[str, Any]:
        """The status as JSON; docs/operations.md describes the keys."""
        record, totals = self.output.record, self.totals
        return {
            "output": self.output.layout.root,
            "complete": self.complete,
            "alive": bool(self.alive),
            "shards_planned": len(self.output.specs),
            **{f"shards_{state}": count for state, count in self.shards.items()},
            "clips": totals.rows,
            "audio_seconds": totals.audio_seconds,
            "frames": totals.frames,
            "rejects": totals.rejects,
            "rejects_by_reason": dict(sorted(totals.rejects_by_reason.items())),
            "output_bytes": totals.output_bytes,
            "shards_by_machine": dict(sorted(totals.shards_by_machine.items())),
            "model": record.model.name,
            "fingerprint": record.fingerprint,
            "speed": self.speed,
            "seconds_left": self.seconds_left,
            "retries": sum(run.retries for run in self.runs),
            "failures": {shard: reason for run in self.last for shard, reason in run.failures.items()},
            "runs": [
                {
                    "run_id": run.run_id,
                    "state": run.state_at(self.looked_at),
                    "host": run.host,
                    "pid": run.pid,
                    "started_at": run.started_at,
                    "moved_at": run.moved_at,
                    "actors": run.actors,
                    "shards_committed": run.shards_committed,
                    "audio_seconds": run.audio_seconds,
                    "speed": run.speed,
                    "busy": run.busy,
                    "retries": run.retries,
                }
                for run in self.runs
            ],
        }

    def lines(self) -> dict[str, str]:
        """The status for people: name and value of each line."""
        shards = ", ".join(f"{count:,} {state}" for state, count in self.shards.items() if count)
        rows = {
            "model": self.output.record.model.name,
            **describe(self.totals),
            "shards": f"{self.totals.shards:,} of {len(self.output.specs):,} ({shards})",
        }
        if self.totals.shards_by_machine:
            rows["made on"] = describe_machines(self.totals)
        if retries := sum(run.retries for run in self.runs):
            rows["retries"] = f"{retries:,}"
        if self.speed:
            rows["speed"] = f"{self.speed:,.1f}x real time over the last minutes"
        if self.seconds_left is not None and not self.complete:
            rows["time left"] = f"about {format_seconds(self.seconds_left)}"
        for run in self.last:
            rows[f"run {run.run_id}"] = self._describe_run(run)
        return rows

    def _describe_run(self, run: Heartbeat) -> str:
        state = run.state_at(self.looked_at)
        ago = format_seconds(max(0.0, self.looked_at - run.moved_at))
        where = f"process {run.pid} on {run.host}"
        if state == RUNNING:
            return f"running, {where}, {run.actors} actors, encoders busy {run.busy:.0%}, last heard of {ago} ago"
        if state == SILENT:
            return f"silent for {ago}: dead, or cut off from the store; {where}"
        return f"{state} {ago} ago, {where}"


class Observer:
    """Reads the status of one output repeatedly. Each manifest is read only once."""

    def __init__(self, uri: str) -> None:
        """Raises FileNotFoundError if there is no output at `uri`."""
        self.output = read_output(uri)
        """As it was when it was opened."""
        self._totals_cache = self.output.totals_cache()
        self._sizes = {spec.shard_id: spec.size for spec in self.output.specs}

    def look(self) -> Status:
        """The status now. Raises StorageError."""
        layout = self.output.layout
        committed = manifest.committed_ids(layout) & self._sizes.keys()
        for shard in manifest.read_manifests(layout, self._totals_cache.uncounted(committed)):
            self._totals_cache.add(shard)
        return Status(
            output=self.output,
            totals=self._totals_cache.totals,
            complete=storage.stat(layout.success) is not None,
            runs=read_heartbeats(layout),
            looked_at=time.time(),
            bytes_done=sum(self._sizes[shard_id] for shard_id in committed),
        )
