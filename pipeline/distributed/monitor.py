"""What a run tells the world while it goes: progress, log lines, metrics and a heartbeat, from what its driver says."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any

from pipeline.dataset.dataset import Output
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.totals import Totals
from pipeline.distributed.metrics import RunMetrics
from pipeline.distributed.scheduler import Attempt, Scheduler
from pipeline.distributed.throughput import ActorFigures, Pace
from pipeline.items import ShardSpec
from pipeline.logs import LogFormat
from pipeline.monitoring import heartbeat
from pipeline.monitoring.progress import Progress
from pipeline.storage import StorageError

logger = logging.getLogger(__name__)

KEPT_FAILURES = 100


class Monitor:
    """Is told what happens in a run; wants Ray to be there. Nothing that goes wrong in telling stops the run."""

    def __init__(self, output: Output, run_id: str, scheduler: Scheduler, log_format: LogFormat) -> None:
        now = time.monotonic()
        self._layout = output.layout
        self._scheduler = scheduler
        self._progress = Progress(scheduler.remaining, len(output.done), log_format)
        self._metrics = RunMetrics(run_id)
        self._pace = Pace(now)
        self._beat = heartbeat.first_beat(run_id)
        self._next_beat = now
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._written: Future[None] | None = None
        self._done_before = len(output.done)
        self._encoded_seconds = 0.0

    def __enter__(self) -> Monitor:
        self._progress.__enter__()
        shards = {"shards": self._scheduler.remaining, "committed_before": self._done_before}
        logger.info("the run begins", extra={"output": self._layout.root, **shards})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        state = self._ending(kind)
        logger.info("the run ends: %s", state, extra={"state": state, "shards": self._beat.shards_committed})
        self._beat = replace(self._beat, state=state, actors=0, shards_open=0)
        self._write(wait=True)
        self._writer.shutdown()

    def note(self, line: str, spec: ShardSpec | None = None) -> None:
        """Something that the person who runs it should know."""
        self._progress.note(line, **({"shard": spec.shard_id} if spec else {}))

    def opened(self, attempt: Attempt, actor: str) -> None:
        """A shard was given to an actor."""
        if attempt.number > 1:
            self._beat = replace(self._beat, retries=self._beat.retries + 1)
            self._metrics.retried()
        fields = {"shard": attempt.spec.shard_id, "attempt": attempt.number, "actor": actor}
        logger.info("given to an actor: %s", attempt.spec.place, extra=fields)

    def committed(self, manifest: ShardManifest) -> None:
        self._beat = replace(self._beat, shards_committed=self._beat.shards_committed + 1)
        self._metrics.committed(manifest)
        counts = {"clips": manifest.rows, "rejects": manifest.rejects, "audio_seconds": manifest.audio_seconds}
        logger.info("committed", extra={"shard": manifest.shard_id, "attempt": manifest.attempt, **counts})

    def update(self, totals: Totals, encoded_seconds: float, shards_open: int) -> None:
        """Where the run is now: totals of its shards, audio encoded so far, and how many shards actors have."""
        failures = self._scheduler.failures
        self._progress.update(totals, encoded_seconds, len(failures))
        if len(failures) > len(self._beat.failures) and len(self._beat.failures) < KEPT_FAILURES:
            kept = {failure.spec.shard_id: failure.reason for failure in failures[:KEPT_FAILURES]}
            self._beat = replace(self._beat, failures=kept)
        self._beat = replace(
            self._beat,
            shards_open=shards_open,
            shards_failed=len(failures),
            audio_seconds=max(encoded_seconds, totals.audio_seconds),
        )
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + heartbeat.BEAT_SECONDS
            self._write(wait=False)

    def asked(self, actors: Mapping[str, ActorFigures], encoded_seconds: float, busy_seconds: float) -> None:
        """What the actors answered, by name; the sums also count those that are gone."""
        self._pace.add(time.monotonic(), encoded_seconds, busy_seconds, len(actors))
        self._beat = replace(self._beat, actors=len(actors), speed=self._pace.speed, busy=self._pace.busy)
        self._metrics.actors(actors, self._pace, encoded_seconds)
        waiting = self._scheduler.remaining - self._beat.shards_open
        committed = self._done_before + self._beat.shards_committed
        states: dict[str, Any] = {"committed": committed, "open": self._beat.shards_open, "waiting": waiting}
        self._metrics.shards(states | {"failed": self._beat.shards_failed})

    def _ending(self, kind: type[BaseException] | None) -> str:
        if kind is not None:
            return "interrupted" if issubclass(kind, KeyboardInterrupt) else "crashed"
        if self._scheduler.remaining:
            return "stopped"
        return "failed" if self._scheduler.failures else "done"

    def _write(self, wait: bool) -> None:
        if wait or self._written is None or self._written.done():
            beat = replace(self._beat, moved_at=time.time())
            self._written = self._writer.submit(self._publish, beat)
        if wait:
            self._written.result()

    def _publish(self, beat: heartbeat.Heartbeat) -> None:
        try:
            heartbeat.publish(self._layout, beat)
        except (StorageError, OSError) as error:
            logger.warning("moss-tok status will not see this run move: %s", error)
