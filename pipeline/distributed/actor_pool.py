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
from pipeline.distributed.actor_handle import Replica, Reply
from pipeline.distributed.cluster import (
    actor_shape,
    actors_to_start,
    check_room,
    describe_room,
    joined_address,
    live_nodes,
    most_places,
    places_in_actor,
    room_for_actors,
)
from pipeline.distributed.scheduler import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Schedule
from pipeline.yaml_config import ConfigError

LOOK_SECONDS = 2.0  # between two looks at the cluster; also how long an actor is dead before it is asked why
PATIENCE_SECONDS = 60.0  # without any actor before that is said, and again and again
MAX_START_FAILURES = 5  # in a row, with no actor left, before the run ends


class Replicas:
    """Starts, watches, replaces and ends the actors; gives the shards of those that are gone back to the schedule."""

    def __init__(
        self,
        config: Config,
        record: RunRecord,
        run_id: str,
        tokenizer: type[TokenizerActor],
        schedule: Schedule,
        note: Callable[[str], None],
    ) -> None:
        self._config = config
        self._record = record
        self._run_id = run_id
        self._schedule = schedule
        self._note = note
        self._nodes = live_nodes()
        self._shape = actor_shape(config, self._nodes)
        self._grows = joined_address(config.cluster) is not None
        if not self._grows:
            check_room(config, self._shape, self._nodes)
        self._shell: Any = ray.remote(tokenizer)
        self.all: list[Replica] = []
        self.places = 0
        """Shards that each actor may have open at once."""
        self.inbox: SimpleQueue[Reply] = SimpleQueue()
        self._room = -1
        self._next_look = 0.0
        self._next_start = 0.0
        self._next_complaint = time.monotonic() + PATIENCE_SECONDS
        self._start_failures = 0
        self._worked = False

    def call(
        self, replica: Replica, handle: Callable[[Replica, Future[Any]], None], method: str, *arguments: Any
    ) -> None:
        """Call a method of the actor; what comes of it arrives in `inbox`, for `handle`."""
        future: Future[Any] = getattr(replica.actor, method).remote(*arguments).future()
        future.add_done_callback(lambda result: self.inbox.put(Reply(replica, handle, result)))

    def follow(self) -> None:
        """Look at the cluster, if it is time: bury what is dead, start what there is room for, end what there is not.

        Raises ConfigError if no actor can be started. Once `lost` is there, nothing is started any more.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        self._nodes = live_nodes()
        if not self._worked and not self._shape.gpus:
            self._look_for_gpus()
        for replica in list(self.all):
            node_gone = replica.node is not None and replica.node not in self._nodes
            if node_gone or (replica.death is not None and now - replica.died_at >= LOOK_SECONDS):
                self._bury(replica, node_gone)
        if self.lost:
            return
        room = room_for_actors(self._config, self._shape, self._nodes)
        self._say_room(room)
        wanted = actors_to_start(self._config, self._shape, self._nodes) if self._grows else room
        self.places = places_in_actor(self._config, self._shape, self._nodes, min(room, self._schedule.remaining))
        self._fit(min(wanted, self._schedule.remaining), now)
        self._complain_of_waiting(room, now)

    @property
    def lost(self) -> str | None:
        """Why no actor can ever be had again, if so: a cluster may get new nodes, a Ray of this run's own does not."""
        if self._grows or self._nodes:
            return None
        return "the Ray that this run started on this machine has died or was killed; committed shards stay"

    def died(self, replica: Replica, error: RayActorError) -> None:
        """A call came to this. What is open goes back to the schedule later, when the fate of the node is known."""
        if replica.death is None:
            replica.death, replica.died_at = error, time.monotonic()

    def end(self) -> None:
        """End every actor, whatever it is at."""
        for replica in self.all:
            self._kill(replica)

    def _look_for_gpus(self) -> None:
        """Whether a run is on CPUs is settled when its first actor works: until then a GPU may join."""
        shape = actor_shape(self._config, self._nodes)
        if shape.gpus:
            self._shape = shape
            for replica in list(self.all):
                self._remove(replica)

    def _fit(self, wanted: int, now: float) -> None:
        # The dead are on their way out with what they had: see `_bury`.
        # The newest go first: of those that are not ready, they wait for a place where older ones load.
        living = [replica for replica in reversed(self.all) if replica.death is None]
        spare = sorted(living, key=lambda replica: (replica.ready, len(replica.open)))
        for replica in spare[: max(0, len(living) - wanted)]:
            self._schedule.give_back(list(replica.open.values()))
            self._remove(replica)
        if now >= self._next_start:
            for _ in range(wanted - len(living)):
                replica = self._start()
                self.all.append(replica)
                self.call(replica, self._started, "ready")

    def _start(self) -> Replica:
        shell = self._shell.options(
            num_cpus=self._shape.cpus,
            num_gpus=self._shape.gpus,
            max_concurrency=most_places(self._config) + 2,  # and one each for `ready` and `figures`
            max_restarts=0,
            max_task_retries=0,
        )
        return Replica(shell.remote(self._config, self._record, self._run_id))

    def _started(self, replica: Replica, result: Future[Any]) -> None:
        error = result.exception()
        if error is None:
            replica.node = result.result()
            self._worked, self._start_failures = True, 0
        elif isinstance(error, RayActorError) and not error.actor_init_failed:
            self.died(replica, error)
        else:
            self._remove(replica)
            self._start_failed(error, hopeless=not self._worked)

    def _bury(self, replica: Replica, node_gone: bool) -> None:
        tries = list(replica.open.values())
        reason = f"node {replica.node} is gone" if node_gone else cause(replica.death or RayActorError())
        # An actor that cannot be reached, but is not known to have died, is cut off with its node.
        fate = self._schedule.node_gone if node_gone or not _is_dead(replica) else self._schedule.actor_died
        for line in fate(tries, reason):
            self._note(line)
        self._remove(replica)
        if replica.node is None and replica.death is not None:
            self._start_failed(replica.death, hopeless=False)

    def _start_failed(self, error: BaseException, hopeless: bool) -> None:
        self._start_failures += 1
        reason = f"no replica of {self._config.model.name} could be started: {cause(error)}"
        if not self.all and (hopeless or self._start_failures >= MAX_START_FAILURES):
            raise ConfigError(reason) from error
        wait = min(FIRST_RETRY_SECONDS * 2**self._start_failures, LONGEST_RETRY_SECONDS)
        self._next_start = time.monotonic() + wait
        self._note(f"one actor less for {wait:.0f} s: {reason}")

    def _remove(self, replica: Replica) -> None:
        self.all.remove(replica)
        self._kill(replica)

    def _kill(self, replica: Replica) -> None:
        replica.gone = True
        ray.kill(replica.actor)

    def _say_room(self, room: int) -> None:
        if room == self._room:
            return
        asked = self._config.cluster.actors
        if asked != "auto" and room < asked:
            self._note(f"cluster.actors: room for {room} of {asked} now, the others wait: {self._describe_room()}")
        elif room == 0:
            self._note(f"waiting for nodes: {self._describe_room()}")
        elif self._room >= 0:
            self._note(f"the cluster has room for {room} actors now, {self._room} before")
        self._room = room

    def _complain_of_waiting(self, room: int, now: float) -> None:
        ready = any(replica.ready for replica in self.all)
        if ready and room:  # without room readers have no CPU, and nobody else would say so
            self._next_complaint = now + PATIENCE_SECONDS
        elif now >= self._next_complaint:
            self._next_complaint = now + PATIENCE_SECONDS
            what = "no reader has had a CPU" if ready else "no actor has been ready"
            why = "" if ready else ": they wait for a place or load the model"
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            self._note(
                f"{what} for {PATIENCE_SECONDS:.0f} s{why}; {self._describe_room()}; free: {free.get('GPU', 0):g} GPUs "
                f"and {free.get('CPU', 0):g} CPUs; what an autoscaler does about it: ray status"
            )

    def _describe_room(self) -> str:
        asks_for_cpus = self._config.model.device == "auto" and not self._shape.gpus and not self._worked
        hint = "; as none has a GPU, actors ask for CPUs alone: see model.device" if asks_for_cpus else ""
        return describe_room(self._shape, self._nodes) + hint


def _is_dead(replica: Replica) -> bool:
    return not isinstance(replica.death, ray.exceptions.ActorUnavailableError)


def cause(error: BaseException) -> str:
    """The last line of an error that Ray has wrapped: what went wrong, without the frames of Ray itself."""
    inner = getattr(error, "cause", None) or error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    return f"{type(inner).__name__}: {shorten(lines[-1] if lines else 'no message', 500)}"
