"""The actors of a run, each a replica of the codec: as many as the cluster has room for at each moment.

Ray restarts none of them. What died is replaced, and what has joined is used, by one rule: now and then the actors are
compared with the room that the cluster has. Whatever comes back from an actor is a `Reply` in one inbox, so that a
thousand actors cost no more than one to listen to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from textwrap import shorten
from typing import Any

import ray
from ray.exceptions import RayActorError

from pipeline.config import Config
from pipeline.dataset.provenance import RunRecord
from pipeline.distributed.actor import TokenizerActor
from pipeline.distributed.actor_handle import ActorHandle, Reply
from pipeline.distributed.cluster import (
    actor_capacity,
    actor_shape,
    actors_to_start,
    check_capacity,
    describe_capacity,
    joined_address,
    live_nodes,
    max_slots,
    slots_per_actor,
)
from pipeline.distributed.scheduler import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Scheduler
from pipeline.yaml_config import ConfigError

RECONCILE_SECONDS = 2.0  # between two looks at the cluster; also how long an actor is dead before it is asked why
WAIT_WARNING_SECONDS = 60.0  # without any actor before that is said, and again and again
MAX_START_FAILURES = 5  # in a row, with no actor left, before the run ends


class ActorPool:
    """Starts, watches, replaces and ends the actors; gives the shards of those that are gone back to the scheduler."""

    def __init__(
        self,
        config: Config,
        record: RunRecord,
        run_id: str,
        tokenizer: type[TokenizerActor],
        scheduler: Scheduler,
        note: Callable[[str], None],
    ) -> None:
        self._config = config
        self._record = record
        self._run_id = run_id
        self._scheduler = scheduler
        self._note = note
        self._nodes = live_nodes()
        self._shape = actor_shape(config, self._nodes)
        self._grows = joined_address(config.cluster) is not None
        if not self._grows:
            check_capacity(config, self._shape, self._nodes)
        self._actor_class: Any = ray.remote(tokenizer)
        self.actors: list[ActorHandle] = []
        self.slots = 0
        """Shards that each actor may have open at once."""
        self.inbox: SimpleQueue[Reply] = SimpleQueue()
        self._capacity = -1
        self._next_reconcile = 0.0
        self._next_start = 0.0
        self._next_warning = time.monotonic() + WAIT_WARNING_SECONDS
        self._start_failures = 0
        self._worked = False

    def call(
        self, actor: ActorHandle, handle: Callable[[ActorHandle, Future[Any]], None], method: str, *arguments: Any
    ) -> None:
        """Call a method of the actor; what comes of it arrives in `inbox`, for `handle`."""
        future: Future[Any] = getattr(actor.ray_actor, method).remote(*arguments).future()
        future.add_done_callback(lambda result: self.inbox.put(Reply(actor, handle, result)))

    def reconcile(self) -> None:
        """Look at the cluster, if it is time: bury what is dead, start what there is room for, end what there is not.

        Raises ConfigError if no actor can be started. Once `lost` is there, nothing is started any more.
        """
        now = time.monotonic()
        if now < self._next_reconcile:
            return
        self._next_reconcile = now + RECONCILE_SECONDS
        self._nodes = live_nodes()
        if not self._worked and not self._shape.gpus:
            self._look_for_gpus()
        for actor in list(self.actors):
            node_gone = actor.node is not None and actor.node not in self._nodes
            if node_gone or (actor.death is not None and now - actor.died_at >= RECONCILE_SECONDS):
                self._remove_dead(actor, node_gone)
        if self.fatal_error:
            return
        capacity = actor_capacity(self._config, self._shape, self._nodes)
        self._note_capacity(capacity)
        wanted = actors_to_start(self._config, self._shape, self._nodes) if self._grows else capacity
        self.slots = slots_per_actor(self._config, self._shape, self._nodes, min(capacity, self._scheduler.remaining))
        self._scale(min(wanted, self._scheduler.remaining), now)
        self._warn_of_waiting(capacity, now)

    @property
    def fatal_error(self) -> str | None:
        """Why no actor can ever be had again, if so: a cluster may get new nodes, a Ray of this run's own does not."""
        if self._grows or self._nodes:
            return None
        return "the Ray that this run started on this machine has died or was killed; committed shards stay"

    def died(self, actor: ActorHandle, error: RayActorError) -> None:
        """A call came to this. What is open goes back to the scheduler later, when the fate of the node is known."""
        if actor.death is None:
            actor.death, actor.died_at = error, time.monotonic()

    def end(self) -> None:
        """End every actor, whatever it is at."""
        for actor in self.actors:
            self._kill(actor)

    def _look_for_gpus(self) -> None:
        """Whether a run is on CPUs is settled when its first actor works: until then a GPU may join."""
        shape = actor_shape(self._config, self._nodes)
        if shape.gpus:
            self._shape = shape
            for actor in list(self.actors):
                self._remove(actor)

    def _scale(self, wanted: int, now: float) -> None:
        # The dead are on their way out with what they had: see `_remove_dead`.
        # The newest go first: of those that are not ready, they wait for a place where older ones load.
        living = [actor for actor in reversed(self.actors) if actor.death is None]
        spare = sorted(living, key=lambda actor: (actor.ready, len(actor.open)))
        for actor in spare[: max(0, len(living) - wanted)]:
            self._scheduler.give_back(list(actor.open.values()))
            self._remove(actor)
        if now >= self._next_start:
            for _ in range(wanted - len(living)):
                actor = self._start()
                self.actors.append(actor)
                self.call(actor, self._started, "ready")

    def _start(self) -> ActorHandle:
        shell = self._actor_class.options(
            num_cpus=self._shape.cpus,
            num_gpus=self._shape.gpus,
            max_concurrency=max_slots(self._config) + 2,  # and one each for `ready` and `figures`
            max_restarts=0,
            max_task_retries=0,
        )
        return ActorHandle(shell.remote(self._config, self._record, self._run_id))

    def _started(self, actor: ActorHandle, result: Future[Any]) -> None:
        error = result.exception()
        if error is None:
            actor.node = result.result()
            self._worked, self._start_failures = True, 0
        elif isinstance(error, RayActorError) and not error.actor_init_failed:
            self.died(actor, error)
        else:
            self._remove(actor)
            self._start_failed(error, hopeless=not self._worked)

    def _remove_dead(self, actor: ActorHandle, node_gone: bool) -> None:
        attempts = list(actor.open.values())
        reason = f"node {actor.node} is gone" if node_gone else cause(actor.death or RayActorError())
        # An actor that cannot be reached, but is not known to have died, is cut off with its node.
        fate = self._scheduler.node_gone if node_gone or not _is_dead(actor) else self._scheduler.actor_died
        for line in fate(attempts, reason):
            self._note(line)
        self._remove(actor)
        if actor.node is None and actor.death is not None:
            self._start_failed(actor.death, hopeless=False)

    def _start_failed(self, error: BaseException, hopeless: bool) -> None:
        self._start_failures += 1
        reason = f"no replica of {self._config.model.name} could be started: {cause(error)}"
        if not self.actors and (hopeless or self._start_failures >= MAX_START_FAILURES):
            raise ConfigError(reason) from error
        wait = min(FIRST_RETRY_SECONDS * 2**self._start_failures, LONGEST_RETRY_SECONDS)
        self._next_start = time.monotonic() + wait
        self._note(f"one actor less for {wait:.0f} s: {reason}")

    def _remove(self, actor: ActorHandle) -> None:
        self.actors.remove(actor)
        self._kill(actor)

    def _kill(self, actor: ActorHandle) -> None:
        actor.gone = True
        ray.kill(actor.ray_actor)

    def _note_capacity(self, capacity: int) -> None:
        if capacity == self._capacity:
            return
        asked = self._config.cluster.actors
        if asked != "auto" and capacity < asked:
            self._note(
                f"cluster.actors: room for {capacity} of {asked} now, the others wait: {self._describe_capacity()}"
            )
        elif capacity == 0:
            self._note(f"waiting for nodes: {self._describe_capacity()}")
        elif self._capacity >= 0:
            self._note(f"the cluster has room for {capacity} actors now, {self._capacity} before")
        self._capacity = capacity

    def _warn_of_waiting(self, capacity: int, now: float) -> None:
        ready = any(actor.ready for actor in self.actors)
        if ready and capacity:  # without room readers have no CPU, and nobody else would say so
            self._next_warning = now + WAIT_WARNING_SECONDS
        elif now >= self._next_warning:
            self._next_warning = now + WAIT_WARNING_SECONDS
            what = "no reader has had a CPU" if ready else "no actor has been ready"
            why = "" if ready else ": they wait for a place or load the model"
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            self._note(
                f"{what} for {WAIT_WARNING_SECONDS:.0f} s{why}; {self._describe_capacity()}; "
                f"free: {free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs; "
                "what an autoscaler does about it: ray status"
            )

    def _describe_capacity(self) -> str:
        asks_for_cpus = self._config.model.device == "auto" and not self._shape.gpus and not self._worked
        hint = "; as none has a GPU, actors ask for CPUs alone: see model.device" if asks_for_cpus else ""
        return describe_capacity(self._shape, self._nodes) + hint


def _is_dead(actor: ActorHandle) -> bool:
    return not isinstance(actor.death, ray.exceptions.ActorUnavailableError)


def cause(error: BaseException) -> str:
    """The last line of an error that Ray has wrapped: what went wrong, without the frames of Ray itself."""
    inner = getattr(error, "cause", None) or error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    return f"{type(inner).__name__}: {shorten(lines[-1] if lines else 'no message', 500)}"
