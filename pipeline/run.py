"""The driver: a queue of shards that are not committed, actors that are given them, and an end that says what happened.

The driver owns the retries. Ray restarts a dead actor, but its calls come back here as failures, and the shards that it
had go to the queue again. Data never passes through the driver: only specifications out and manifests in.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from pipeline.actors import TokenizerActor
from pipeline.cluster import connect, size_cluster, warn_of_local_output
from pipeline.config import Config, ConfigError
from pipeline.items import ShardSpec
from pipeline.output import Output, open_output, with_absolute_uris
from pipeline.progress import Progress
from pipeline.totals import Totals

TICK_SECONDS = 0.5
FIRST_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class RunSummary:
    """How a run ended."""

    output: Output
    totals: Totals
    """The whole dataset, with what earlier runs did."""
    this_run: Totals
    failed: dict[str, str]
    """Why, for each shard that was given up."""
    wall_seconds: float


def run(config: Config, tokenizer: type[TokenizerActor] = TokenizerActor) -> RunSummary:
    """Tokenize every shard that is not committed yet, then write the card and, if none failed, `_SUCCESS`.

    `tokenizer` is what becomes the actors.

    Raises ConfigError and PlanError before any work. After a KeyboardInterrupt the same call goes on with the output.
    """
    config = with_absolute_uris(config)
    output = open_output(config)
    started = time.monotonic()
    this_run = Totals()
    failed: dict[str, str] = {}
    if output.todo:
        connect(config.cluster)
        warn_of_local_output(output)
        try:
            this_run, failed = _Scheduler(config, output, tokenizer).run()
        finally:
            ray.shutdown()
    totals = output.finish()
    return RunSummary(output, totals, this_run, failed, time.monotonic() - started)


@dataclass(slots=True)
class _Replica:
    """An actor and the shards that it was given."""

    actor: Any
    starting: ray.ObjectRef[Any] | None
    """Resolves once the model is loaded; None when it is. Until then the actor is given nothing."""
    pending: dict[ray.ObjectRef[Any], ShardSpec] = field(default_factory=dict)
    poll: ray.ObjectRef[Any] | None = None
    encoded_seconds: float = 0.0
    encoded_before: float = 0.0
    """By incarnations of the actor that died."""


class _Scheduler:
    """Gives each actor a few shards at a time until the queue is empty."""

    def __init__(self, config: Config, output: Output, tokenizer: type[TokenizerActor]) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._output = output
        self._queue: deque[ShardSpec] = deque(output.todo)
        self._attempts: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._totals = Totals()
        self._replicas = self._start_actors()

    def run(self) -> tuple[Totals, dict[str, str]]:
        """Totals of the shards that were committed, and why for those that were given up."""
        try:
            with Progress(len(self._queue), len(self._output.done)) as progress:
                while self._queue or any(replica.pending for replica in self._replicas):
                    self._admit(progress)
                    self._assign()
                    self._collect(progress)
                    self._poll()
                    encoded = sum(replica.encoded_before + replica.encoded_seconds for replica in self._replicas)
                    progress.update(self._totals, encoded, len(self._failed))
        finally:
            for replica in self._replicas:
                ray.kill(replica.actor)
        return self._totals, self._failed

    def _start_actors(self) -> list[_Replica]:
        cluster = self._config.cluster
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        count, gpus = size_cluster(self._config, resources)
        shell: Any = ray.remote(self._tokenizer).options(
            num_cpus=cluster.cpus_per_actor,
            num_gpus=gpus,
            max_concurrency=cluster.shards_per_actor + 2,  # and one each for `ready` and `encoded_seconds`
            max_restarts=-1,
            max_task_retries=0,
        )
        actors = [shell.remote(self._config, self._output.record) for _ in range(min(count, len(self._queue)))]
        return [_Replica(actor, starting=actor.ready.remote()) for actor in actors]

    def _admit(self, progress: Progress) -> None:
        """Take note of the actors that have loaded the model, and drop those that cannot."""
        for replica in list(self._replicas):
            if replica.starting is None or not ray.wait([replica.starting], timeout=0)[0]:
                continue
            try:
                ray.get(replica.starting)
                replica.starting = None
            except ActorUnavailableError:
                replica.starting = replica.actor.ready.remote()  # Ray is restarting it
            except RayError as error:
                self._replicas.remove(replica)
                reason = f"no replica of {self._config.model.name} could be started: {_cause(error)}"
                if not self._replicas:
                    raise ConfigError(reason) from error
                progress.note(f"one actor less: {reason}")

    def _assign(self) -> None:
        # In rounds, so that a short queue is spread over all actors.
        for depth in range(self._config.cluster.shards_per_actor):
            for replica in self._replicas:
                if replica.starting is None and len(replica.pending) == depth and (spec := self._next()) is not None:
                    attempt = self._attempts[spec.shard_id] + 1
                    replica.pending[replica.actor.tokenize.remote(spec, attempt)] = spec

    def _next(self) -> ShardSpec | None:
        now = time.monotonic()
        for _ in range(len(self._queue)):
            spec = self._queue.popleft()
            if self._not_before.get(spec.shard_id, 0.0) <= now:
                return spec
            self._queue.append(spec)
        return None

    def _collect(self, progress: Progress) -> None:
        owners = {reference: replica for replica in self._replicas for reference in replica.pending}
        if not owners:
            time.sleep(TICK_SECONDS)  # no actor is ready, or every shard that is left waits for its next try
            return
        ray.wait(list(owners), num_returns=1, timeout=TICK_SECONDS)
        finished, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        for reference in finished:
            replica = owners[reference]
            spec = replica.pending.pop(reference)
            try:
                self._totals.add(Totals.of(ray.get(reference)))
            except Exception as error:
                if isinstance(error, RayActorError) and replica.starting is None:
                    replica.starting = replica.actor.ready.remote()  # it died: give it nothing until it is back
                self._retry(spec, error, progress)

    def _retry(self, spec: ShardSpec, error: Exception, progress: Progress) -> None:
        self._attempts[spec.shard_id] += 1
        attempt, allowed = self._attempts[spec.shard_id], self._config.cluster.max_attempts
        reason = _cause(error)
        if attempt >= allowed:
            self._failed[spec.shard_id] = reason
            progress.note(f"shard {spec.shard_id} ({spec.place}) failed {attempt} times and is given up: {reason}")
            return
        progress.note(f"shard {spec.shard_id} ({spec.place}) failed, try {attempt} of {allowed}: {reason}")
        self._not_before[spec.shard_id] = time.monotonic() + FIRST_RETRY_SECONDS * 2 ** (attempt - 1)
        self._queue.append(spec)

    def _poll(self) -> None:
        """Ask each actor how much it has encoded: shards may take long, and the bar should move within them."""
        for replica in self._replicas:
            if replica.poll is None:
                replica.poll = replica.actor.encoded_seconds.remote()
            elif ray.wait([replica.poll], timeout=0)[0]:
                try:
                    seconds = ray.get(replica.poll)
                except RayError:
                    seconds = 0.0  # it died, and its shards come back through `_collect`
                if seconds < replica.encoded_seconds:
                    replica.encoded_before += replica.encoded_seconds
                replica.encoded_seconds = seconds
                replica.poll = None


def _cause(error: BaseException) -> str:
    """The last line of an error that Ray has wrapped: what went wrong, without the frames of Ray itself."""
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else 'no message'}"
