"""One actor as the driver sees it, and what comes back from it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayActorError

from pipeline.distributed.scheduler import Try
from pipeline.distributed.throughput import ActorFigures


@dataclass(slots=True, eq=False)
class Replica:
    """An actor and what it was given."""

    actor: Any
    node: str | None = None
    """Id of its node once the model is loaded. Until then it is given nothing."""
    open: dict[str, Try] = field(default_factory=dict)
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
        return str(self.actor._actor_id.hex())

    @property
    def ready(self) -> bool:
        return self.node is not None and self.death is None

    def has_place(self, depth: int) -> bool:
        """Whether it has `depth` shards open and may be given another."""
        return self.ready and len(self.open) == depth and not any(tried.alone for tried in self.open.values())


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call of an actor's method came to."""

    replica: Replica
    handle: Callable[[Replica, Future[Any]], None]
    result: Future[Any]

    def deliver(self) -> None:
        if not self.replica.gone:
            self.handle(self.replica, self.result)
