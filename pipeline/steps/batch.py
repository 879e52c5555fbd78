"""Clips of any length into batches under a budget of frames: the oldest shard first, and within a shard the longest
clip.

The codec packs a batch without padding, so clips of different lengths share one at no cost. What a batch holds decides
the speed and nothing else: codes do not depend on it. The oldest shard goes first because with the longest clip of all
shards first, the shards that are open together would also end together, and the encoder would wait while the next ones
are opened.
"""

from __future__ import annotations

import bisect
from typing import Generic, TypeVar

T = TypeVar("T")

POOL_BATCHES = 4  # with so many batches' worth of items to choose from, batches are nearly full


class Batcher(Generic[T]):
    """A pool of waiting items, each with its length in frames."""

    def __init__(self, max_frames: int) -> None:
        """`max_frames` is the budget of a batch. A longer item makes a batch of its own."""
        self._max_frames = max_frames
        self._pools: dict[int, list[tuple[int, int, T]]] = {}  # by rank; ascending by frames, newest first among equals
        self._added = 0
        self.frames = 0
        """Sum of the frames of all waiting items."""

    def add(self, item: T, frames: int, rank: int = 0) -> None:
        """Add an item. Items of a lower `rank` are taken first; the rank is the shard's number in the order of
        opening."""
        bisect.insort(
            self._pools.setdefault(rank, []), (frames, -self._added, item), key=lambda entry: (entry[0], entry[1])
        )
        self._added += 1
        self.frames += frames

    @property
    def full(self) -> bool:
        """Whether enough items wait for a well-filled batch."""
        return self.frames >= POOL_BATCHES * self._max_frames

    def take(self) -> list[T]:
        """The next batch, empty if nothing waits.

        The ranks are gone through in ascending order, and of each the longest items are taken that still fit. The very
        first item is taken in any case.
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
