"""The driver: gives shards that are not committed to actors until every shard is committed or given up.

`scheduler` decides which shard is next, `actor_pool` how many actors there are. No audio and no codes pass through the
driver: it sends specifications and receives manifests.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError

from pipeline import logs, signals, storage
from pipeline.config import Config
from pipeline.dataset.dataset import Output, gpu_here, open_output, with_absolute_uris
from pipeline.dataset.machines import OutputMachine, restore_machine
from pipeline.dataset.totals import Totals
from pipeline.dataset.totals_cache import TotalsCache
from pipeline.distributed.actor import TokenizerActor
from pipeline.distributed.actor_handle import ActorHandle
from pipeline.distributed.actor_pool import ActorPool, cause
from pipeline.distributed.cluster import actor_shape, connect, joined_address, live_nodes, warn_of_local_output
from pipeline.distributed.monitor import Monitor
from pipeline.distributed.reject_limit import too_many_rejects
from pipeline.distributed.scheduler import OUTAGE_SECONDS, Attempt, Failure, Scheduler
from pipeline.distributed.throughput import ActorFigures
from pipeline.monitoring import heartbeat
from pipeline.monitoring.heartbeat import Heartbeat, new_run_id, read_heartbeats
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
    """Totals of the whole dataset, including what earlier runs committed."""
    this_run: Totals
    failures: list[Failure]
    """Shards that were given up."""
    stopped: str | None
    """Why the run ended before its last shard; None if it did not."""
    wall_seconds: float


def run(config: Config, tokenizer: type[TokenizerActor] = TokenizerActor) -> RunSummary:
    """Tokenize every shard that is not committed yet, then write the card and, if none failed, `_SUCCESS`.

    `tokenizer` is the class of the actors. Raises ConfigError and PlanError before any work is done. After a
    KeyboardInterrupt, the same call continues with the output.
    """
    config = with_absolute_uris(config)
    run_id, began = new_run_id(), time.time()
    output = open_output(config, _gpus_there)
    if output.retries:
        output = _retry_unless_beside_a_run(output, run_id)
    restore_machine(output)
    logger.info("%s", output.progress, extra=logs.plain())
    started = time.monotonic()
    driver = _Driver(config, output, run_id)
    if output.todo:
        connect(config.cluster)
        try:
            signals.check()
            warn_of_local_output(output, live_nodes())
            driver.run(tokenizer)
        finally:
            ray.shutdown()
    cache = driver.totals_cache
    if cache.may_change and any(beat.moved_at > began for beat in _other_runs(output, run_id)):
        cache = TotalsCache(output.specs)  # another run may have replaced shards that are counted as they were
    totals = output.finish(cache)
    return RunSummary(
        output, totals, driver.totals, driver.scheduler.failures, driver.stopped, time.monotonic() - started
    )


def _gpus_there(config: Config) -> bool:
    """Whether the actors of this run will be on GPUs, as far as the cluster shows by now."""
    if config.model.device != "auto" or joined_address(config.cluster) is None:
        return gpu_here(config)
    connect(config.cluster)
    try:
        found = actor_shape(config, live_nodes()).gpus > 0
    finally:
        ray.shutdown()
    if not found:
        logger.info("model.dtype: float32, as the cluster has no GPU yet: for GPUs that come, say bfloat16")
    return found


def _retry_unless_beside_a_run(output: Output, run_id: str) -> Output:
    """A shard is deleted before it is replaced, which another run that counts on it must not see.

    Each run says that it is there before it looks for others: of two that begin together, at least one sees the other.
    """
    heartbeat.publish(output.layout, heartbeat.first_beat(run_id))
    now = time.time()
    others = [beat for beat in _other_runs(output, run_id) if beat.may_be_at_work(now)]
    if not others:
        return output
    logger.warning(
        "files that were missing are there again, but their %d shards are left as they are: the run %s is at work on "
        "this output, or was a minute ago. Give the command again later",
        len(output.retries),
        others[0].run_id,
    )
    output = output.without_retries()
    if not output.todo:
        storage.remove(output.layout.heartbeat(run_id))
    return output


def _other_runs(output: Output, run_id: str) -> list[Heartbeat]:
    return [beat for beat in read_heartbeats(output.layout) if beat.run_id != run_id]


class _Driver:
    """Keeps a few shards open in every actor until no shard is left."""

    def __init__(self, config: Config, output: Output, run_id: str | None = None) -> None:
        self._config = config
        self._output = output
        self.scheduler = Scheduler(output.todo, config.run.max_attempts)
        self.totals_cache: TotalsCache = output.totals_cache()
        self.totals = Totals()
        self.stopped: str | None = None
        self._run_id = run_id or new_run_id()
        self._asked: set[ActorHandle] = set()
        self._removed = ActorFigures()
        self._next_poll = 0.0
        self._next_save = time.monotonic() + SAVE_SECONDS

    def run(self, tokenizer: type[TokenizerActor]) -> None:
        """Work until every shard is committed or given up, or there is a reason to stop."""
        log_format = self._config.run.log_format
        logs.configure(log_format, run=self._run_id, process="driver", pid=os.getpid())
        with Monitor(self._output, self._run_id, self.scheduler, log_format) as self._monitor:
            record, note = self._output.record, self._monitor.note
            machine = OutputMachine(self._output, self._config.run.machines)
            pool = ActorPool(self._config, record, self._run_id, tokenizer, self.scheduler, note, machine.objection)
            try:
                while self.scheduler.remaining and not self.stopped:
                    signals.check()
                    pool.reconcile()
                    if pool.fatal_error:
                        self.stopped = pool.fatal_error
                        break
                    self._assign(pool)
                    pool.handle_replies(TICK_SECONDS)
                    self._poll(pool)
                    self._save()
                    shards_open = sum(len(actor.open) for actor in pool.actors)
                    self._monitor.update(self.totals, self._sums().encoded_seconds, shards_open)
            finally:
                pool.kill_all()

    def _assign(self, pool: ActorPool) -> None:
        """Fill the free slots of actors, one slot of each actor at a time, so that a short queue is spread over all."""
        for count in range(pool.slots):
            for actor in pool.actors:
                if actor.has_free_slot(count) and (attempt := self.scheduler.next(open_shards=count)) is not None:
                    actor.open[attempt.spec.shard_id] = attempt
                    self._monitor.opened(attempt, actor.name)
                    on_done = partial(self._on_tokenized, pool, attempt)
                    old = self._output.retries.get(attempt.spec.shard_id)
                    replaces = [] if old is None else [old]
                    pool.call(actor, on_done, "tokenize", attempt.spec, attempt.number, *replaces)

    def _on_tokenized(self, pool: ActorPool, attempt: Attempt, actor: ActorHandle, result: Future[Any]) -> None:
        error = result.exception()
        if isinstance(error, RayActorError):
            pool.mark_dead(actor, error)  # its shards stay with it until it is known whether its node died
            return
        del actor.open[attempt.spec.shard_id]
        if error is None:
            manifest = result.result()
            self.scheduler.committed(attempt)
            self.totals.add(Totals.of(manifest))
            self.totals_cache.add(manifest)
            self._monitor.committed(manifest)
            if self.scheduler.remaining:
                self.stopped = too_many_rejects(self.totals, self._config.run.max_reject_fraction)
        elif isinstance(getattr(error, "cause", error), NodeDiedError | ObjectLostError):
            for line in self.scheduler.node_gone([attempt], f"the node of its reader is gone: {cause(error)}"):
                self._monitor.note(line, attempt.spec)
        elif isinstance(error, StoreUnavailable):
            self._monitor.note(self.scheduler.store_unavailable(attempt, cause(error)), attempt.spec)
            if self.scheduler.store_outage_is_too_long:
                self.stopped = f"a store has not answered for {OUTAGE_SECONDS / 60:.0f} minutes: {cause(error)}"
        else:
            self._monitor.note(self.scheduler.failed(attempt, cause(error)), attempt.spec)

    def _poll(self, pool: ActorPool) -> None:
        """Ask each actor for its figures: shards may take long, and the progress bar should move meanwhile."""
        now = time.monotonic()
        if now < self._next_poll:
            return
        self._next_poll = now + POLL_SECONDS
        for actor in pool.actors:
            if actor.ready:
                pool.call(actor, partial(self._on_figures, pool), "figures")
        ready = {actor.name: actor.figures for actor in pool.actors if actor.ready}
        sums = self._sums()
        self._monitor.asked(ready, sums.encoded_seconds, sums.busy_seconds)

    def _on_figures(self, pool: ActorPool, actor: ActorHandle, result: Future[Any]) -> None:
        error = result.exception()
        if error is None:
            actor.figures = result.result()
            self._asked.add(actor)
        elif isinstance(error, RayActorError):
            pool.mark_dead(actor, error)  # so that it is given no more shards

    def _sums(self) -> ActorFigures:
        """Figures of all actors of the run, including those that are gone."""
        for actor in [actor for actor in self._asked if actor.removed]:
            self._asked.remove(actor)
            self._removed = self._removed + actor.figures
        return sum((actor.figures for actor in self._asked), self._removed)

    def _save(self) -> None:
        """Store the totals so far, so that few manifests must be read if this process dies and the run is resumed."""
        now = time.monotonic()
        if now < self._next_save:
            return
        self._next_save = now + SAVE_SECONDS
        try:
            self._output.save(self.totals_cache)
        except StorageError as error:
            self._monitor.note(f"the totals so far could not be saved, which only costs time on resuming: {error}")
