"""Divides clips by length among folders, so that batches from one folder waste little on padding."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buckets:
    """Ascending limits between buckets in seconds. Bucket b has clips of at least limit b-1 and less than limit b."""

    limits: tuple[float, ...]

    def folder(self, split: str, seconds: float) -> str:
        """The folder of a clip: `split` if there is one bucket, else for example `split/bucket_03`."""
        return f"{split}/bucket_{bisect_right(self.limits, seconds):02d}" if self.limits else split


def equal_hours(durations: Counter[float], buckets: int) -> Buckets:
    """Limits that give each bucket about the same sum of durations; fewer buckets if too many clips are equally long.

    `durations` has the number of clips of each length, so memory grows with the number of lengths, not of clips.
    """
    total = sum(seconds * count for seconds, count in durations.items())
    limits: list[float] = []
    passed = 0.0
    for seconds in sorted(durations):
        if passed >= total * (len(limits) + 1) / buckets and len(limits) < buckets - 1:
            limits.append(seconds)
        passed += seconds * durations[seconds]
    return Buckets(tuple(limits))
