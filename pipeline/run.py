"""The driver: gives the shards that are not committed to the actors, and ends with what became of each.

What is tried next is decided in `schedule`, how many actors there are in `replicas`; here the two meet. Data never
passes through the driver: only specifications out and manifests in.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError

from pipeline.actors import TokenizerActor
from pipeline.cluster import connect, live_nodes, warn_of_local_output
from pipeline.config import Config
from pipeline.output import Output, open_output, with_absolute_uris
from pipeline.progress import Progress
from pipeline.reject_limit import too_many_rejects
from pipeline.replicas import Replica, Replicas, cause
from pipeline.schedule import Failure, Schedule, Try
from pipeline.storage import StorageError
from pipeline.tally import Tally
from pipeline.totals import Totals

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
    started = time.monotonic()
    driver = _Driver(config, output)
    if output.todo:
        connect(config.cluster)
        try:
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
        self.schedule = Schedule(output.todo, config.cluster.max_attempts)
        self.tally: Tally = output.tally()
        self.totals = Totals()
        self.stopped: str | None = None
        self._encoded: dict[Replica, float] = {}
        self._encoded_by_the_gone = 0.0
        self._next_poll = 0.0
        self._next_save = time.monotonic() + SAVE_SECONDS

    def run(self, tokenizer: type[TokenizerActor]) -> None:
        """Until every shard is committed or given up, or there is a reason to stop."""
        with Progress(self.schedule.remaining, len(self._output.done)) as self._progress:
            replicas = Replicas(self._config, self._output.record, tokenizer, self.schedule, self._progress.note)
            try:
                while self.schedule.remaining and not self.stopped:
                    replicas.follow()
                    self._assign(replicas)
                    self._listen(replicas)
                    self._poll(replicas)
                    self._save()
                    self._progress.update(self.totals, self._encoded_seconds(replicas), len(self.schedule.failures))
            finally:
                replicas.end()

    def _assign(self, replicas: Replicas) -> None:
        """Fill up the actors, in rounds, so that a short queue is spread over all of them."""
        for depth in range(self._config.cluster.shards_per_actor):
            for replica in replicas.all:
                if replica.has_place(depth) and (tried := self.schedule.take(beside=depth)) is not None:
                    replica.open[tried.spec.shard_id] = tried
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
            self.stopped = too_many_rejects(self.totals, self._config.cluster.max_reject_fraction)
        elif isinstance(getattr(error, "cause", error), NodeDiedError | ObjectLostError):
            for line in self.schedule.node_gone([tried], f"its reader's node is gone: {cause(error)}"):
                self._progress.note(line)
        else:
            self._progress.note(self.schedule.failed(tried, cause(error)))

    def _poll(self, replicas: Replicas) -> None:
        """Ask each actor how much it has encoded: shards may take long, and the bar should move within them."""
        now = time.monotonic()
        if now < self._next_poll:
            return
        self._next_poll = now + POLL_SECONDS
        for replica in replicas.all:
            if replica.ready:
                replicas.call(replica, self._polled, "encoded_seconds")

    def _polled(self, replica: Replica, result: Future[Any]) -> None:
        if result.exception() is None:
            self._encoded[replica] = result.result()

    def _encoded_seconds(self, replicas: Replicas) -> float:
        for replica in [replica for replica in self._encoded if replica.gone]:
            self._encoded_by_the_gone += self._encoded.pop(replica)
        return self._encoded_by_the_gone + sum(self._encoded.values())

    def _save(self) -> None:
        """Keep what is counted so far, so that after a death of this process few manifests are to be read."""
        now = time.monotonic()
        if now < self._next_save:
            return
        self._next_save = now + SAVE_SECONDS
        try:
            self._output.save(self.tally)
        except StorageError as error:
            self._progress.note(f"the totals so far are not saved, which only costs time later: {error}")
