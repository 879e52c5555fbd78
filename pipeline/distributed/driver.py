"""The driver: gives the shards that are not committed to the actors, and ends with what became of each.

What is tried next is decided in `schedule`, how many actors there are in `replicas`; here the two meet. Data never
passes through the driver: only specifications out and manifests in.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError

from pipeline import logs, signals
from pipeline.config import Config
from pipeline.dataset.dataset import Output, open_output, with_absolute_uris
from pipeline.dataset.totals import Totals
from pipeline.dataset.totals_cache import Tally
from pipeline.distributed.actor import TokenizerActor
from pipeline.distributed.actor_handle import Replica
from pipeline.distributed.actor_pool import Replicas, cause
from pipeline.distributed.cluster import connect, live_nodes, warn_of_local_output
from pipeline.distributed.monitor import Monitor
from pipeline.distributed.reject_limit import too_many_rejects
from pipeline.distributed.scheduler import OUTAGE_SECONDS, Failure, Schedule, Try
from pipeline.distributed.throughput import ActorFigures
from pipeline.monitoring.heartbeat import new_run_id
from pipeline.storage import StorageError, StoreUnavailable

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
POLL_SECONDS = 2.0
SAVE_SECONDS = 60.0


@dataclass(slots=True)
class RunSummary:
    """How a run ended."""

    output: Output
    totals: Totals
    """The whole dataset, with what earlier runs did."""
    this_run: Totals
    failures: list[Failure]
    """The shards that were given up."""
    stopped: str | None
    """Why the run ended before its last shard, if it did."""
    wall_seconds: float


def run(config: Config, tokenizer: type[TokenizerActor] = TokenizerActor) -> RunSummary:
    """Tokenize every shard that is not committed yet, then write the card and, if none failed, `_SUCCESS`.

    `tokenizer` is what becomes the actors.

    Raises ConfigError and PlanError before any work. After a KeyboardInterrupt the same call goes on with the output.
    """
    config = with_absolute_uris(config)
    output = open_output(config)
    logger.info("%s", output.progress, extra=logs.plain())
    started = time.monotonic()
    driver = _Driver(config, output)
    if output.todo:
        connect(config.cluster)
        try:
            signals.check()
            warn_of_local_output(output, live_nodes())
            driver.run(tokenizer)
        finally:
            ray.shutdown()
    totals = output.finish(driver.tally)
    return RunSummary(
        output, totals, driver.totals, driver.schedule.failures, driver.stopped, time.monotonic() - started
    )


class _Driver:
    """Keeps every actor supplied with a few shards until none is left."""

    def __init__(self, config: Config, output: Output) -> None:
        self._config = config
        self._output = output
        self.schedule = Schedule(output.todo, config.run.max_attempts)
        self.tally: Tally = output.tally()
        self.totals = Totals()
        self.stopped: str | None = None
        self._run_id = new_run_id()
        self._asked: set[Replica] = set()
        self._gone = ActorFigures()
        self._next_poll = 0.0
        self._next_save = time.monotonic() + SAVE_SECONDS

    def run(self, tokenizer: type[TokenizerActor]) -> None:
        """Until every shard is committed or given up, or there is a reason to stop."""
        log_format = self._config.run.log_format
        logs.configure(log_format, run=self._run_id, process="driver", pid=os.getpid())
        with Monitor(self._output, self._run_id, self.schedule, log_format) as self._monitor:
            record, note = self._output.record, self._monitor.note
            replicas = Replicas(self._config, record, self._run_id, tokenizer, self.schedule, note)
            try:
                while self.schedule.remaining and not self.stopped:
                    signals.check()
                    replicas.follow()
                    if replicas.lost:
                        self.stopped = replicas.lost
                        break
                    self._assign(replicas)
                    self._listen(replicas)
                    self._poll(replicas)
                    self._save()
                    shards_open = sum(len(replica.open) for replica in replicas.all)
                    self._monitor.update(self.totals, self._sums().encoded_seconds, shards_open)
            finally:
                replicas.end()

    def _assign(self, replicas: Replicas) -> None:
        """Fill up the actors, in rounds, so that a short queue is spread over all of them."""
        for depth in range(replicas.places):
            for replica in replicas.all:
                if replica.has_place(depth) and (tried := self.schedule.take(beside=depth)) is not None:
                    replica.open[tried.spec.shard_id] = tried
                    self._monitor.opened(tried, replica.name)
                    handle = partial(self._tokenized, replicas, tried)
                    replicas.call(replica, handle, "tokenize", tried.spec, tried.number)

    def _listen(self, replicas: Replicas) -> None:
        """Wait for a reply, but not long, then take all that have come."""
        try:
            replicas.inbox.get(timeout=TICK_SECONDS).deliver()
            while True:
                replicas.inbox.get_nowait().deliver()
        except Empty:
            return

    def _tokenized(self, replicas: Replicas, tried: Try, replica: Replica, result: Future[Any]) -> None:
        error = result.exception()
        if isinstance(error, RayActorError):
            replicas.died(replica, error)  # and the shard stays with it until it is known why
            return
        del replica.open[tried.spec.shard_id]
        if error is None:
            manifest = result.result()
            self.schedule.committed(tried)
            self.totals.add(Totals.of(manifest))
            self.tally.add(manifest)
            self._monitor.committed(manifest)
            if self.schedule.remaining:
                self.stopped = too_many_rejects(self.totals, self._config.run.max_reject_fraction)
        elif isinstance(getattr(error, "cause", error), NodeDiedError | ObjectLostError):
            for line in self.schedule.node_gone([tried], f"its reader's node is gone: {cause(error)}"):
                self._monitor.note(line, tried.spec)
        elif isinstance(error, StoreUnavailable):
            self._monitor.note(self.schedule.store_away(tried, cause(error)), tried.spec)
            if self.schedule.store_is_gone:
                self.stopped = f"a store has not answered for {OUTAGE_SECONDS / 60:.0f} minutes: {cause(error)}"
        else:
            self._monitor.note(self.schedule.failed(tried, cause(error)), tried.spec)

    def _poll(self, replicas: Replicas) -> None:
        """Ask each actor how it is: shards may take long, and the bar should move within them."""
        now = time.monotonic()
        if now < self._next_poll:
            return
        self._next_poll = now + POLL_SECONDS
        for replica in replicas.all:
            if replica.ready:
                replicas.call(replica, partial(self._polled, replicas), "figures")
        ready = {replica.name: replica.figures for replica in replicas.all if replica.ready}
        sums = self._sums()
        self._monitor.asked(ready, sums.encoded_seconds, sums.busy_seconds)

    def _polled(self, replicas: Replicas, replica: Replica, result: Future[Any]) -> None:
        error = result.exception()
        if error is None:
            replica.figures = result.result()
            self._asked.add(replica)
        elif isinstance(error, RayActorError):
            replicas.died(replica, error)  # before it is given a shard that would be blamed for it

    def _sums(self) -> ActorFigures:
        """Over all actors that there ever were."""
        for replica in [replica for replica in self._asked if replica.gone]:
            self._asked.remove(replica)
            self._gone = self._gone + replica.figures
        return sum((replica.figures for replica in self._asked), self._gone)

    def _save(self) -> None:
        """Keep what is counted so far, so that after a death of this process few manifests are to be read."""
        now = time.monotonic()
        if now < self._next_save:
            return
        self._next_save = now + SAVE_SECONDS
        try:
            self._output.save(self.tally)
        except StorageError as error:
            self._monitor.note(f"the totals so far are not saved, which only costs time later: {error}")
