"""One actor as the driver sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayActorError

from pipeline.distributed.scheduler import Attempt
from pipeline.distributed.throughput import ActorFigures


@dataclass(slots=True, eq=False)
class ActorHandle:
    """An actor, and the attempts that it was given."""

    ray_actor: Any
    node: str | None = None
    """Ray's id of its node; None until the model is loaded. Until then it is given no shard."""
    open: dict[str, Attempt] = field(default_factory=dict)
    """Attempts that it is at, by id of the shard."""
    death: RayActorError | None = None
    died_at: float = 0.0
    removed: bool = False
    """Whether it was ended. Calls that end after that are ignored."""
    figures: ActorFigures = field(default_factory=ActorFigures)
    """Its latest figures."""

    @property
    def name(self) -> str:
        """Ray's id of the actor, for messages and labels."""
        return str(self.ray_actor._actor_id.hex())

    @property
    def ready(self) -> bool:
        return self.node is not None and self.death is None

    def has_free_slot(self, open_shards: int) -> bool:
        """Whether it has exactly `open_shards` shards open and may be given another one."""
        return (
            self.ready and len(self.open) == open_shards and not any(attempt.isolated for attempt in self.open.values())
        )
