"""The actors of a run: each holds one replica of each codec, and there are as many as the cluster has capacity for.

Ray restarts no actor. Every few seconds `reconcile` compares the actors with the capacity of the cluster. It removes
those that died, starts new ones and ends surplus ones. All calls of all actors end in one queue, so that waiting for a
thousand actors costs no more than waiting for one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue
from textwrap import shorten
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayActorError

from pipeline.codecs.machine import Machine
from pipeline.dataset.machines import REMEDY
from pipeline.dataset.opening import OutputMismatch
from pipeline.distributed.actor import Readiness, TokenizerActor
from pipeline.distributed.actor_handle import ActorHandle
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
from pipeline.shard.tokenize import CodecJob
from pipeline.yaml_config import ConfigError

RECONCILE_SECONDS = 2.0  # between two looks at the cluster; also the time in which Ray learns that a node is gone
WAIT_WARNING_SECONDS = 60.0  # a run without a ready actor warns this often
NODE_LABEL = "ray.io/node-id"  # Ray gives it to every node
MAX_START_FAILURES = 5  # the run ends after so many failed starts in a row, if no actor is left

OnDone: TypeAlias = "Callable[[ActorHandle, Future[Any]], None]"
"""Gets the actor and the future of a call that has ended."""
_Reply: TypeAlias = "tuple[ActorHandle, OnDone, Future[Any]]"


class ActorPool:
    """Starts, watches, replaces and ends the actors. Shards of an actor that is gone go back to the scheduler."""

    def __init__(
        self,
        jobs: Sequence[CodecJob],
        run_id: str,
        tokenizer: type[TokenizerActor],
        scheduler: Scheduler,
        note: Callable[[str], None],
        objection: Callable[[Sequence[Machine]], str | None] = lambda machines: None,
    ) -> None:
        """`objection` says why an actor whose codecs compute on such machines may not encode for these outputs, or None
        if it may.
        """
        self._jobs = jobs
        self._config = config = jobs[0].config
        self._run_id = run_id
        self._scheduler = scheduler
        self._note = note
        self._objection = objection
        self._foreign: dict[str, str] = {}
        """Nodes whose machines may not encode, and why. They read and decode."""
        self._nodes = live_nodes()
        self._shape = actor_shape(config, self._nodes)
        self._grows = joined_address(config.cluster) is not None
        if not self._grows:
            check_capacity(config, self._shape, self._nodes)
        self._actor_class: Any = ray.remote(tokenizer)
        self.actors: list[ActorHandle] = []
        self.slots = 0
        """Number of shards that an actor may have open at once."""
        self._replies: SimpleQueue[_Reply] = SimpleQueue()
        self._capacity = -1
        self._next_reconcile = 0.0
        self._next_start = 0.0
        self._next_warning = time.monotonic() + WAIT_WARNING_SECONDS
        self._start_failures = 0
        self._worked = False

    def call(self, actor: ActorHandle, on_done: OnDone, method: str, *arguments: Any) -> None:
        """Call a method of the actor. `handle_replies` gives the future to `on_done` once it is done."""
        future: Future[Any] = getattr(actor.ray_actor, method).remote(*arguments).future()
        future.add_done_callback(lambda done: self._replies.put((actor, on_done, done)))

    def handle_replies(self, seconds: float) -> None:
        """Wait at most so long for a call to end, then handle every call that has ended."""
        try:
            actor, on_done, future = self._replies.get(timeout=seconds)
            while True:
                if not actor.removed:
                    on_done(actor, future)
                actor, on_done, future = self._replies.get_nowait()
        except Empty:
            return

    def reconcile(self) -> None:
        """If it is time: remove dead actors, start actors as capacity allows, end actors beyond it.

        Raises ConfigError if no actor can be started. Starts nothing once there is a `fatal_error`.
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
        capacity = actor_capacity(self._config, self._shape, self._nodes, self._foreign)
        self._note_capacity(capacity)
        wanted = capacity
        if self._grows:
            wanted = actors_to_start(self._config, self._shape, self._nodes, self._foreign)
        self.slots = slots_per_actor(self._config, self._shape, self._nodes, min(capacity, self._scheduler.remaining))
        self._scale(min(wanted, self._scheduler.remaining), now)
        self._warn_of_waiting(capacity, now)

    @property
    def fatal_error(self) -> str | None:
        """Why no actor can ever start again, if so. Nodes may join a cluster, but not a Ray that this run started."""
        if self._grows or self._nodes:
            return None
        return "the Ray that this run started on this machine has died or was killed; committed shards stay"

    def mark_dead(self, actor: ActorHandle, error: RayActorError) -> None:
        """A call failed because its actor died. Its shards go back once it is known whether its node died too."""
        if actor.death is None:
            actor.death, actor.died_at = error, time.monotonic()

    def kill_all(self) -> None:
        """End every actor, even in the middle of a shard."""
        for actor in self.actors:
            self._kill(actor)

    def _look_for_gpus(self) -> None:
        """Use GPUs that have joined. A run that began without GPUs stays on CPUs once an actor was ready."""
        shape = actor_shape(self._config, self._nodes)
        if shape.gpus:
            self._shape = shape
            for actor in list(self.actors):
                self._remove(actor)

    def _scale(self, wanted: int, now: float) -> None:
        # Dead actors do not count: `_remove_dead` takes them and their shards out. Actors that are not ready are ended
        # first, and the newest of those: they still wait for resources where older ones load the model.
        living = [actor for actor in reversed(self.actors) if actor.death is None]
        spare = sorted(living, key=lambda actor: (actor.ready, len(actor.open)))
        for actor in spare[: max(0, len(living) - wanted)]:
            self._scheduler.give_back(list(actor.open.values()))
            self._remove(actor)
        if now >= self._next_start:
            for _ in range(wanted - len(living)):
                actor = self._start()
                self.actors.append(actor)
                self.call(actor, self._on_ready, "ready")

    def _start(self) -> ActorHandle:
        shell = self._actor_class.options(
            num_cpus=self._shape.cpus,
            num_gpus=self._shape.gpus,
            max_concurrency=max_slots(self._config) + 2,  # one more for `ready` and one for `figures`
            max_restarts=0,
            max_task_retries=0,
            **self._elsewhere(),
        )
        return ActorHandle(shell.remote([self._with_device(job) for job in self._jobs], self._run_id))

    def _with_device(self, job: CodecJob) -> CodecJob:
        """With the device that Ray assigns: an actor that cannot use its GPU must say so and not take the CPU."""
        model = job.config.model
        on_gpu = self._shape.gpus and model.device != "cpu"
        model = model.model_copy(update={"device": "cuda" if on_gpu else "cpu"})
        return replace(job, config=job.config.model_copy(update={"model": model}))

    def _on_ready(self, actor: ActorHandle, result: Future[Any]) -> None:
        error = result.exception()
        if error is None:
            ready: Readiness = result.result()
            objection = self._objection(ready.machines)
            if objection is not None:
                self._keep_off(ready.node, actor, objection)
                return
            actor.node = ready.node
            self._worked, self._start_failures = True, 0
        elif isinstance(error, RayActorError) and not error.actor_init_failed:
            self.mark_dead(actor, error)
        else:
            self._remove(actor)
            self._start_failed(error, hopeless=not self._worked)

    def _elsewhere(self) -> dict[str, Any]:
        """Options that keep an actor off the nodes that may not encode."""
        if not self._foreign:
            return {}
        return {"label_selector": {NODE_LABEL: f"!in({','.join(sorted(self._foreign))})"}}

    def _keep_off(self, node: str, actor: ActorHandle, objection: str) -> None:
        """End the actor of a node that may not encode, and start none there again.

        Raises OutputMismatch if no other node could hold an actor and none ever did.
        """
        first = node not in self._foreign
        self._foreign[node] = objection
        self._remove(actor)
        others = {name: resources for name, resources in self._nodes.items() if name not in self._foreign}
        if not self._worked and not any(self._shape.capacity(resources) for resources in others.values()):
            raise OutputMismatch(f"{objection}. {REMEDY}")
        if first:
            self._note(f"node {node} only reads and decodes: {objection}")
        self._next_reconcile = 0.0

    def _remove_dead(self, actor: ActorHandle, node_gone: bool) -> None:
        attempts = list(actor.open.values())
        reason = f"node {actor.node} is gone" if node_gone else cause(actor.death or RayActorError())
        # An actor that cannot be reached, and is not known to be dead, lost the network with its node.
        fate = self._scheduler.node_gone if node_gone or not _is_dead(actor) else self._scheduler.actor_died
        for line in fate(attempts, reason):
            self._note(line)
        self._remove(actor)
        if actor.node is None and actor.death is not None:
            self._start_failed(actor.death, hopeless=False)

    def _start_failed(self, error: BaseException, hopeless: bool) -> None:
        self._start_failures += 1
        names = " and ".join(job.config.model.name for job in self._jobs)
        reason = f"no actor could load {names}: {cause(error)}"
        if not self.actors and (hopeless or self._start_failures >= MAX_START_FAILURES):
            raise ConfigError(reason) from error
        wait = min(FIRST_RETRY_SECONDS * 2**self._start_failures, LONGEST_RETRY_SECONDS)
        self._next_start = time.monotonic() + wait
        self._note(f"the next actor is started in {wait:.0f} s: {reason}")

    def _remove(self, actor: ActorHandle) -> None:
        self.actors.remove(actor)
        self._kill(actor)

    def _kill(self, actor: ActorHandle) -> None:
        actor.removed = True
        ray.kill(actor.ray_actor)

    def _note_capacity(self, capacity: int) -> None:
        if capacity == self._capacity:
            return
        asked = self._config.cluster.actors
        if asked != "auto" and capacity < asked:
            self._note(
                f"cluster.actors: capacity for {capacity} of {asked} now, the others wait: {self._describe_capacity()}"
            )
        elif capacity == 0:
            self._note(f"waiting for nodes: {self._describe_capacity()}")
        elif self._capacity >= 0:
            self._note(f"the cluster has capacity for {capacity} actors now ({self._capacity} before)")
        self._capacity = capacity

    def _warn_of_waiting(self, capacity: int, now: float) -> None:
        ready = any(actor.ready for actor in self.actors)
        if ready and capacity:  # without capacity no CPU is left for readers, which wait without a message
            self._next_warning = now + WAIT_WARNING_SECONDS
        elif now >= self._next_warning:
            self._next_warning = now + WAIT_WARNING_SECONDS
            what = "no reader has had a CPU" if ready else "no actor has been ready"
            why = "" if ready else ": actors wait for resources or load the model"
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            self._note(
                f"{what} for {WAIT_WARNING_SECONDS:.0f} s{why}; {self._describe_capacity()}; "
                f"free: {free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs; "
                "`ray status` shows what an autoscaler does about it"
            )

    def _describe_capacity(self) -> str:
        asks_for_cpus = self._config.model.device == "auto" and not self._shape.gpus and not self._worked
        hint = "; none has a GPU, so actors ask for CPUs only: see model.device" if asks_for_cpus else ""
        return describe_capacity(self._shape, self._nodes) + hint


def _is_dead(actor: ActorHandle) -> bool:
    return not isinstance(actor.death, ray.exceptions.ActorUnavailableError)


def cause(error: BaseException) -> str:
    """Type and last line of an error, without the frames that Ray wraps around it."""
    inner = getattr(error, "cause", None) or error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    return f"{type(inner).__name__}: {shorten(lines[-1] if lines else 'no message', 500)}"
