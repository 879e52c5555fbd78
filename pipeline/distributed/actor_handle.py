"""One actor as the driver sees it, and what comes back from it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayActorError

from pipeline.distributed.scheduler import Attempt
from pipeline.distributed.throughput import ActorFigures


@dataclass(slots=True, eq=False)
class ActorHandle:
    """An actor and what it was given."""

    ray_actor: Any
    node: str | None = None
    """Id of its node once the model is loaded. Until then it is given nothing."""
    open: dict[str, Attempt] = field(default_factory=dict)
    """By id of the shard."""
    death: RayActorError | None = None
    died_at: float = 0.0
    gone: bool = False
    """Nothing that still comes from it counts."""
    figures: ActorFigures = field(default_factory=ActorFigures)
    """What it last said of itself."""

    @property
    def name(self) -> str:
        """For people and for labels: Ray's id of the actor."""
        return str(self.ray_actor._actor_id.hex())

    @property
    def ready(self) -> bool:
        return self.node is not None and self.death is None

    def has_free_slot(self, depth: int) -> bool:
        """Whether it has `depth` shards open and may be given another."""
        return self.ready and len(self.open) == depth and not any(attempt.isolated for attempt in self.open.values())


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call of an actor's method came to."""

    actor: ActorHandle
    handle: Callable[[ActorHandle, Future[Any]], None]
    result: Future[Any]

    def deliver(self) -> None:
        if not self.actor.gone:
            self.handle(self.actor, self.result)
