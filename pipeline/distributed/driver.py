"""The driver: gives shards that are not committed to actors until every shard is committed or given up.

`scheduler` decides which shard is next, `actor_pool` how many actors there are. No audio and no codes pass through the
driver: it sends specifications and receives manifests.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError

from pipeline import logs, signals, storage
from pipeline.codecs.machine import Machine
from pipeline.config import Config
from pipeline.dataset.dataset import Output
from pipeline.dataset.machines import OutputMachine, restore_machine
from pipeline.dataset.opening import gpu_here, open_outputs, with_absolute_uris
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
from pipeline.items import ShardSpec
from pipeline.monitoring import heartbeat
from pipeline.monitoring.heartbeat import Heartbeat, new_run_id, read_heartbeats
from pipeline.shard.tokenize import CodecJob
from pipeline.storage import StorageError, StoreUnavailable

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
POLL_SECONDS = 2.0
SAVE_SECONDS = 60.0


@dataclass(slots=True)
class RunSummary:
    """How a run ended for one output."""

    output: Output
    totals: Totals
    """Totals of the whole dataset, including what earlier runs committed."""
    this_run: Totals
    failures: list[Failure]
    """Shards that were given up, and are not committed to this output."""
    stopped: str | None
    """Why the run ended before its last shard; None if it did not."""
    wall_seconds: float


def run(config: Config, tokenizer: type[TokenizerActor] = TokenizerActor) -> RunSummary:
    """`run_all` of a configuration with one codec."""
    (summary,) = run_all(config, tokenizer)
    return summary


def run_all(config: Config, tokenizer: type[TokenizerActor] = TokenizerActor) -> list[RunSummary]:
    """Tokenize with each codec every shard that it has not committed yet, then write the card of each output and, if
    none of its shards failed, `_SUCCESS`.

    `tokenizer` is the class of the actors. Raises ConfigError and PlanError before any work is done. After a
    KeyboardInterrupt, the same call continues with the outputs.
    """
    config = with_absolute_uris(config)
    run_id, began = new_run_id(), time.time()
    outputs = open_outputs(config, _gpus_there)
    outputs = [_retry_unless_beside_a_run(output, run_id) if output.retries else output for output in outputs]
    for output in outputs:
        restore_machine(output)
        name = f"{output.record.model.label}: " if config.models else ""
        logger.info("%s%s", name, output.progress, extra=logs.plain())
    started = time.monotonic()
    driver = _Driver(config, outputs, run_id)
    if driver.scheduler.remaining:
        connect(config.cluster)
        try:
            signals.check()
            warn_of_local_output(outputs[0], live_nodes())
            driver.run(tokenizer)
        finally:
            ray.shutdown()
    summaries: list[RunSummary] = []
    errors: list[Exception] = []
    for output, cache, this_run in zip(outputs, driver.totals_caches, driver.totals, strict=True):
        try:
            totals, cache = _finish(output, cache, began, run_id)
        except Exception as error:
            errors.append(error)  # the other outputs are finished all the same
            continue
        failures, seconds = driver.failures_of(cache), time.monotonic() - started
        summaries.append(RunSummary(output, totals, this_run, failures, driver.stopped, seconds))
    if errors:
        raise errors[0]
    return summaries


def _finish(output: Output, cache: TotalsCache, began: float, run_id: str) -> tuple[Totals, TotalsCache]:
    """The totals of an output at the end of a run, and what they were counted with."""
    if cache.may_change and any(beat.moved_at > began for beat in _other_runs(output, run_id)):
        cache = TotalsCache(output.specs)  # another run may have replaced shards that are counted as they were
    return output.finish(cache), cache


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

    def __init__(self, config: Config, outputs: Sequence[Output], run_id: str | None = None) -> None:
        """`outputs` are those of the codecs of the configuration, and have the same plan."""
        self._config = config
        self._outputs = outputs
        todo = (spec for spec in outputs[0].specs if self._codecs_to_do(spec))
        self.scheduler = Scheduler(todo, config.run.max_attempts)
        self.totals_caches = [output.totals_cache() for output in outputs]
        self.totals = [Totals() for _ in outputs]
        """Of this run, for each output."""
        self._pass = Totals()
        """Of this run, with each shard as the first of its codecs made it."""
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
        configs = self._config.of_each_model()
        jobs = [CodecJob(config, output.record) for config, output in zip(configs, self._outputs, strict=True)]
        self._machines = [OutputMachine(output, self._config.run.machines) for output in self._outputs]
        with Monitor(self._outputs, self._run_id, self.scheduler, log_format) as self._monitor:
            note = self._monitor.note
            pool = ActorPool(jobs, self._run_id, tokenizer, self.scheduler, note, self._objection)
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
                    self._monitor.update(self._pass, self._sums().encoded_seconds, shards_open)
            finally:
                pool.kill_all()

    def failures_of(self, cache: TotalsCache) -> list[Failure]:
        """The shards that were given up and are not among those that were counted for an output."""
        missing = cache.uncounted(failure.spec.shard_id for failure in self.scheduler.failures)
        return [failure for failure in self.scheduler.failures if failure.spec.shard_id in missing]

    def _codecs_to_do(self, spec: ShardSpec) -> list[int]:
        """Positions of the outputs that this shard was not committed to."""
        return [position for position, output in enumerate(self._outputs) if spec.shard_id not in output.done]

    def _objection(self, machines: Sequence[Machine]) -> str | None:
        pairs = zip(self._machines, machines, strict=True)
        return next((why for output, machine in pairs if (why := output.objection(machine)) is not None), None)

    def _assign(self, pool: ActorPool) -> None:
        """Fill the free slots of actors, one slot of each actor at a time, so that a short queue is spread over all."""
        for count in range(pool.slots):
            for actor in pool.actors:
                if actor.has_free_slot(count) and (attempt := self.scheduler.next(open_shards=count)) is not None:
                    actor.open[attempt.spec.shard_id] = attempt
                    self._monitor.opened(attempt, actor.name)
                    on_done = partial(self._on_tokenized, pool, attempt)
                    codecs = self._codecs_to_do(attempt.spec)
                    replaces = [self._outputs[codec].retries.get(attempt.spec.shard_id) for codec in codecs]
                    pool.call(actor, on_done, "tokenize", attempt.spec, attempt.number, codecs, replaces)

    def _on_tokenized(self, pool: ActorPool, attempt: Attempt, actor: ActorHandle, result: Future[Any]) -> None:
        error = result.exception()
        if isinstance(error, RayActorError):
            pool.mark_dead(actor, error)  # its shards stay with it until it is known whether its node died
            return
        del actor.open[attempt.spec.shard_id]
        if error is None:
            manifests = result.result()
            self.scheduler.committed(attempt)
            self._pass.add(Totals.of(manifests[0]))
            for codec, manifest in zip(self._codecs_to_do(attempt.spec), manifests, strict=True):
                self.totals[codec].add(Totals.of(manifest))
                self.totals_caches[codec].add(manifest)
            self._monitor.committed(manifests)
            if self.scheduler.remaining:
                stops = (too_many_rejects(totals, self._config.run.max_reject_fraction) for totals in self.totals)
                self.stopped = next(filter(None, stops), None)
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
            for output, cache in zip(self._outputs, self.totals_caches, strict=True):
                output.save(cache)
        except StorageError as error:
            self._monitor.note(f"the totals so far could not be saved, which only costs time on resuming: {error}")
