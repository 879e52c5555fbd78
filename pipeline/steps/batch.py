"""Clips of any length into batches under a budget of frames: oldest shard first, and of a shard longest first.

The codec packs a batch without padding, so clips of different lengths share one at no cost. What a batch holds decides
speed alone: codes do not depend on it. Were it longest first over all shards, the shards that are open together would
also end together, and the encoder would wait while the next ones are opened.
"""

from __future__ import annotations

import bisect
from typing import Generic, TypeVar

T = TypeVar("T")

POOL_BATCHES = 4  # with this many batches' worth to choose from, batches come out nearly full


class Batcher(Generic[T]):
    """A pool of waiting items, each with its length in frames."""

    def __init__(self, max_frames: int) -> None:
        """`max_frames` is the budget of a batch; a longer item makes a batch of its own."""
        self._max_frames = max_frames
        self._pools: dict[int, list[tuple[int, int, T]]] = {}  # by rank; ascending by frames, within them newest first
        self._added = 0
        self.frames = 0
        """Frames that wait."""

    def add(self, item: T, frames: int, rank: int = 0) -> None:
        """Items of a lower `rank` go first: a shard's, which counts up as shards are opened."""
        bisect.insort(
            self._pools.setdefault(rank, []), (frames, -self._added, item), key=lambda entry: (entry[0], entry[1])
        )
        self._added += 1
        self.frames += frames

    @property
    def full(self) -> bool:
        """Whether enough waits for a well-filled batch."""
        return self.frames >= POOL_BATCHES * self._max_frames

    def take(self) -> list[T]:
        """From rank to rank the longest items that still fit, of the first the longest in any case.

        Empty if nothing waits.
        """
        batch: list[T] = []
        room = self._max_frames
        for rank in sorted(self._pools):
            pool = self._pools[rank]
            while pool:
                fitting = bisect.bisect_right(pool, room, key=lambda entry: entry[0]) if batch else len(pool)
                if fitting == 0:
                    break
                frames, _, item = pool.pop(fitting - 1)
                batch.append(item)
                room -= frames
                self.frames -= frames
            if not pool:
                del self._pools[rank]
        return batch
