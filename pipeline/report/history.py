"""What the manifests say about the work: totals, attempts, and throughput over time, from one pass over them."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.totals import Totals

EXAMPLE_SHARDS = 3
"""Shards that are searched for examples of one reason."""
PAUSE_SECONDS = 120.0
"""A time without work is left out of the time line if it is this long, and a twentieth of the whole."""


@dataclass(slots=True)
class History:
    """Sums over the committed shards. Three numbers are kept per shard, 24 MB for a million shards."""

    totals: Totals = field(default_factory=Totals)
    attempts: Counter[int] = field(default_factory=Counter)
    """Number of shards by the attempt that committed them, from 1; 0 if the manifest was rebuilt from the data."""
    shards_by_reason: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the first shards with rejects, by reason."""
    versions: Counter[tuple[tuple[str, str], ...]] = field(default_factory=Counter)
    """Number of shards by the software that made them: names and versions."""
    _started: array[float] = field(default_factory=lambda: array("d"))
    _finished: array[float] = field(default_factory=lambda: array("d"))
    _audio: array[float] = field(default_factory=lambda: array("d"))

    def add(self, manifest: ShardManifest) -> None:
        self.totals.add(Totals.of(manifest))
        self.attempts[manifest.attempt] += 1
        self.versions[tuple(sorted(manifest.versions.items()))] += 1
        for reason in manifest.rejects_by_reason:
            shards = self.shards_by_reason.setdefault(reason, [])
            if len(shards) < EXAMPLE_SHARDS:
                shards.append(manifest.shard_id)
        times = (manifest.started_at, manifest.finished_at)
        if manifest.attempt and all(map(math.isfinite, times)) and 0 < times[0] <= times[1]:
            self._started.append(times[0])
            self._finished.append(times[1])
            self._audio.append(manifest.audio_seconds)

    def timeline(self, bins: int) -> Timeline | None:
        """Throughput over the time at work, in `bins` equal parts; None if no manifest says when its shard was made."""
        if not self._started:
            return None
        return _timeline(np.array(self._started), np.array(self._finished), np.array(self._audio), bins)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Throughput over the time at work."""

    started: float
    """Unix time at which the first shard began."""
    finished: float
    """Unix time at which the last shard was finished."""
    busy_seconds: float
    """Seconds between the two, without the pauses."""
    pauses: list[float]
    """Positions of the pauses that were left out, in seconds of the time at work."""
    speed: np.ndarray
    """Seconds of audio per second in each bin."""

    @property
    def mean_speed(self) -> float:
        return float(self.speed.mean())


def read_history(manifests: Iterable[ShardManifest]) -> History:
    """The history of these manifests."""
    history = History()
    for manifest in manifests:
        history.add(manifest)
    return history


def _timeline(started: np.ndarray, finished: np.ndarray, audio: np.ndarray, bins: int) -> Timeline:
    """A shard's audio is spread evenly over the time from its beginning to its end."""
    order = np.argsort(started, kind="stable")
    started, finished, audio = started[order], finished[order], audio[order]
    last_end = np.maximum.accumulate(finished)
    idle = np.maximum(started[1:] - last_end[:-1], 0)
    pause = idle > max(PAUSE_SECONDS, (last_end[-1] - started[0]) / 20)
    left_out = np.concatenate([[0], np.cumsum(np.where(pause, idle, 0))])
    begin, end = started - started[0] - left_out, finished - started[0] - left_out
    busy = max(float(end.max()), 1e-3)
    edges = np.linspace(0, busy, bins + 1)
    # Audio done by each edge: a shard adds a ramp, so the sum over shards is linear between beginnings and ends.
    span = np.maximum(end - begin, busy * 1e-6)
    moments = np.concatenate([begin, begin + span])
    slope = np.concatenate([audio / span, -audio / span])
    order = np.argsort(moments, kind="stable")
    moments, rate = moments[order], np.cumsum(slope[order])
    done = np.concatenate([[0], np.cumsum(rate[:-1] * np.diff(moments))])
    speed = np.maximum(np.diff(np.interp(edges, moments, done)), 0) / (busy / bins)
    pauses = [float(where) for where in last_end[:-1][pause] - started[0] - left_out[:-1][pause]]
    return Timeline(float(started[0]), float(last_end[-1]), busy, pauses, speed)
