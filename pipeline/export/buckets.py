"""Folders for clips of similar length, so that batches of one folder waste little on padding."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buckets:
    """Limits between buckets in seconds, ascending: bucket b has clips from limit b-1 on, shorter than limit b."""

    limits: tuple[float, ...]

    def folder(self, split: str, seconds: float) -> str:
        """`split` alone where there is one bucket, `split/bucket_03` where there are more."""
        return f"{split}/bucket_{bisect_right(self.limits, seconds):02d}" if self.limits else split


def equal_hours(durations: Counter[float], buckets: int) -> Buckets:
    """Limits that give each bucket about the same sum of durations; fewer buckets where too many clips are as long.

    `durations` counts the clips of each length, which bounds the memory by the number of lengths, not of clips.
    """
    total = sum(seconds * count for seconds, count in durations.items())
    limits: list[float] = []
    passed = 0.0
    for seconds in sorted(durations):
        if passed >= total * (len(limits) + 1) / buckets and len(limits) < buckets - 1:
            limits.append(seconds)
        passed += seconds * durations[seconds]
    return Buckets(tuple(limits))
