"""What a run tells the world while it goes: progress, log lines, metrics and a heartbeat."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

from pipeline.dataset.dataset import Output
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.totals import Totals
from pipeline.distributed.metrics import RunMetrics
from pipeline.distributed.scheduler import Attempt, Scheduler
from pipeline.distributed.throughput import ActorFigures, Throughput
from pipeline.items import ShardSpec
from pipeline.logs import LogFormat
from pipeline.monitoring import heartbeat
from pipeline.monitoring.progress import Progress
from pipeline.storage import StorageError

logger = logging.getLogger(__name__)

KEPT_FAILURES = 100


class Monitor:
    """The driver tells it what happens in a run. Needs Ray, for the metrics. No failure to report stops the run."""

    def __init__(self, outputs: Sequence[Output], run_id: str, scheduler: Scheduler, log_format: LogFormat) -> None:
        """A shard of several outputs counts as one; each output gets the same heartbeat."""
        now = time.monotonic()
        self._layouts = [output.layout for output in outputs]
        self._scheduler = scheduler
        self._committed_before = len(outputs[0].specs) - scheduler.remaining
        self._progress = Progress(scheduler.remaining, self._committed_before, log_format)
        self._metrics = RunMetrics(run_id)
        self._throughput = Throughput(now)
        self._first_beat = heartbeat.first_beat(run_id)
        self._next_beat = now
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._written: Future[None] | None = None
        self._committed = 0
        self._open = 0
        self._retries = 0
        self._actors = 0
        self._audio_seconds = 0.0

    def __enter__(self) -> Monitor:
        self._progress.__enter__()
        shards = {"shards": self._scheduler.remaining, "committed_before": self._committed_before}
        logger.info("the run begins", extra={"output": ", ".join(layout.root for layout in self._layouts), **shards})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        state = self._ending(kind)
        logger.info("the run ends: %s", state, extra={"state": state, "shards": self._committed})
        self._actors = self._open = 0
        self._writer.submit(self._publish, self._beat(state)).result()
        self._writer.shutdown()

    def note(self, line: str, spec: ShardSpec | None = None) -> None:
        """Show a line to the person who runs it, and log it; `spec` is the shard that it is about."""
        self._progress.note(line, **({"shard": spec.shard_id} if spec else {}))

    def opened(self, attempt: Attempt, actor: str) -> None:
        """A shard was given to an actor."""
        if attempt.number > 1:
            self._retries += 1
            self._metrics.retried()
        fields = {"shard": attempt.spec.shard_id, "attempt": attempt.number, "actor": actor}
        logger.info("given to an actor: %s", attempt.spec.place, extra=fields)

    def committed(self, manifests: Sequence[ShardManifest]) -> None:
        """An actor has committed a shard, with one codec or several."""
        self._committed += 1
        for manifest in manifests:
            self._metrics.committed(manifest)
            counts = {"clips": manifest.rows, "rejects": manifest.rejects, "audio_seconds": manifest.audio_seconds}
            logger.info("committed", extra={"shard": manifest.shard_id, "attempt": manifest.attempt, **counts})

    def update(self, totals: Totals, encoded_seconds: float, shards_open: int) -> None:
        """The state of the run: totals of its shards, seconds of audio encoded so far, shards that actors have open."""
        self._open = shards_open
        self._audio_seconds = max(encoded_seconds, totals.audio_seconds)
        self._progress.update(totals, encoded_seconds, len(self._scheduler.failures))
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + heartbeat.BEAT_SECONDS
            if self._written is None or self._written.done():  # else the store is slow: this beat is left out
                self._written = self._writer.submit(self._publish, self._beat())

    def asked(self, actors: Mapping[str, ActorFigures], encoded_seconds: float, busy_seconds: float) -> None:
        """The figures of the actors, by name. The sums also count actors that are gone."""
        self._actors = len(actors)
        self._throughput.add(time.monotonic(), encoded_seconds, busy_seconds, len(actors))
        self._metrics.actors(actors, self._throughput, encoded_seconds)
        self._metrics.shards(
            {
                "committed": self._committed_before + self._committed,
                "open": self._open,
                "waiting": self._scheduler.remaining - self._open,
                "failed": len(self._scheduler.failures),
            }
        )

    def _ending(self, kind: type[BaseException] | None) -> str:
        if kind is not None:
            return "interrupted" if issubclass(kind, KeyboardInterrupt) else "crashed"
        if self._scheduler.remaining:
            return "stopped"
        return "failed" if self._scheduler.failures else "done"

    def _beat(self, state: str = heartbeat.RUNNING) -> heartbeat.Heartbeat:
        failures = self._scheduler.failures
        return replace(
            self._first_beat,
            moved_at=time.time(),
            state=state,
            actors=self._actors,
            shards_committed=self._committed,
            shards_open=self._open,
            shards_failed=len(failures),
            retries=self._retries,
            audio_seconds=self._audio_seconds,
            speed=self._throughput.speed,
            busy=self._throughput.busy,
            failures={failure.spec.shard_id: failure.reason for failure in failures[:KEPT_FAILURES]},
        )

    def _publish(self, beat: heartbeat.Heartbeat) -> None:
        for layout in self._layouts:
            try:
                heartbeat.publish(layout, beat)
            except (StorageError, OSError) as error:
                logger.warning("moss-tok status will not see this run move: %s", error)
