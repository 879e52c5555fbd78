"""Clips of any length into batches under a budget of frames, longest first.

The codec packs a batch without padding, so clips of different lengths share one at no cost. What a batch holds decides
speed alone: codes do not depend on it.
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
        self._waiting: list[tuple[int, int, T]] = []  # ascending by frames, and within them newest first
        self._added = 0
        self.frames = 0
        """Frames that wait."""

    def add(self, item: T, frames: int) -> None:
        bisect.insort(self._waiting, (frames, -self._added, item), key=lambda entry: entry[:2])
        self._added += 1
        self.frames += frames

    @property
    def full(self) -> bool:
        """Whether enough waits for a well-filled batch."""
        return self.frames >= POOL_BATCHES * self._max_frames

    def take(self) -> list[T]:
        """The longest item and then the longest that still fit; empty if nothing waits."""
        batch: list[T] = []
        room = self._max_frames
        while self._waiting:
            fitting = (
                bisect.bisect_right(self._waiting, room, key=lambda entry: entry[0]) if batch else len(self._waiting)
            )
            if fitting == 0:
                break
            frames, _, item = self._waiting.pop(fitting - 1)
            batch.append(item)
            room -= frames
            self.frames -= frames
        return batch
