"""Which shard is tried next, and what becomes of one whose try came to nothing: the rules alone, without Ray.

A try ends in one of six ways:

- **committed**: the shard is done.
- **an error** of its own, such as an input that cannot be read: tried again after a while, `max_attempts` times.
- **a store is away**: it did not answer for long, and since the try began no shard was committed. No fault of the shard
  either. Where others are committed meanwhile, the store is there, and it is an error of the shard's own.
- **its actor died** while its node lived. Which of the shards that were open in it did that, if any, nobody can tell:
  they all are tried again last and alone. A shard that is alone in its actor when that dies is to blame, and is given
  up when that has happened `max_attempts` times.
- **its node is gone**, preempted or broken: no fault of the shard, which is the next to be tried again. Only a shard
  that this befalls ten times `max_attempts` times is given up, for it may be what breaks nodes.
- **given back** by an actor that is not wanted any more: as if it had never been taken.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.items import ShardSpec

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
PREEMPTIONS_PER_ATTEMPT = 10
OUTAGE_SECONDS = 900.0  # of a store, before a run ends


@dataclass(frozen=True, slots=True)
class Attempt:
    """A shard that an actor was given."""

    spec: ShardSpec
    number: int
    """Which try of the shard this is, from 1."""
    isolated: bool
    """Whether nothing else may be open in the same actor."""
    committed_before: int = 0
    """Shards that this run had committed when it was given out."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A shard that was given up."""

    spec: ShardSpec
    reason: str


@dataclass(slots=True)
class _History:
    """What has befallen a shard so far."""

    attempts: int = 0
    errors: int = 0
    isolated_deaths: int = 0
    preemptions: int = 0
    suspect: bool = False
    """An actor died while this shard was open in it."""


class Scheduler:
    """The queue of a run. Remembers only the shards that are left and those that were given up, not the finished."""

    def __init__(
        self, specs: Iterable[ShardSpec], max_attempts: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = deque(specs)
        self._suspects: deque[ShardSpec] = deque()
        self._later: list[tuple[float, int, ShardSpec]] = []
        self._later_count = 0
        self._open = 0
        self._histories: dict[str, _History] = {}
        self._max_attempts = max_attempts
        self._clock = clock
        self._committed = 0
        self._away_since: float | None = None
        self.failures: list[Failure] = []

    @property
    def remaining(self) -> int:
        """Shards that are neither committed nor given up."""
        return len(self._queue) + len(self._suspects) + len(self._later) + self._open

    @property
    def store_outage_is_long(self) -> bool:
        """Whether a store has been away for so long that it makes no sense to wait for it."""
        return self._away_since is not None and self._clock() - self._away_since >= OUTAGE_SECONDS

    def next(self, open_shards: int) -> Attempt | None:
        """The next shard for an actor that has `open_shards` others open; None if there is none for it now."""
        while self._later and self._later[0][0] <= self._clock():
            spec = heapq.heappop(self._later)[2]
            if self._histories[spec.shard_id].suspect:
                self._suspects.append(spec)
            else:
                self._queue.appendleft(spec)
        if self._queue:
            spec, isolated = self._queue.popleft(), False
        elif self._suspects and not open_shards:
            spec, isolated = self._suspects.popleft(), True
        else:
            return None
        self._open += 1
        history = self._histories.get(spec.shard_id)
        return Attempt(spec, history.attempts + 1 if history else 1, isolated, self._committed)

    def committed(self, done: Attempt) -> None:
        self._open -= 1
        self._committed += 1
        self._away_since = None
        self._histories.pop(done.spec.shard_id, None)

    def failed(self, attempt: Attempt, reason: str) -> str:
        """The try ended in an error. Returns what becomes of the shard, for people."""
        history = self._end_attempt(attempt)
        history.errors += 1
        if history.errors >= self._max_attempts:
            return self._give_up(attempt.spec, f"failed {history.errors} times and is given up", reason)
        self._retry_later(attempt.spec, history.errors)
        return _line(attempt.spec, f"failed, try {history.errors} of {self._max_attempts}", reason)

    def store_unavailable(self, attempt: Attempt, reason: str) -> str:
        """A store did not answer. Returns what becomes of the shard, for people."""
        if attempt.committed_before < self._committed:
            return self.failed(attempt, reason)
        if self._away_since is None:
            self._away_since = self._clock()
        self._retry_later(attempt.spec, self._end_attempt(attempt).attempts)
        return _line(attempt.spec, "found a store away and goes back to the queue", reason)

    def actor_died(self, attempts: Sequence[Attempt], reason: str) -> list[str]:
        """An actor died with these open, and its node lives. Returns what becomes of each, for people."""
        return [self._actor_died(attempt, len(attempts), reason) for attempt in attempts]

    def node_gone(self, attempts: Sequence[Attempt], reason: str) -> list[str]:
        """An actor, or what it depends on, went with its node. Returns what becomes of each, for people."""
        return [self._node_gone(attempt, reason) for attempt in attempts]

    def give_back(self, attempts: Sequence[Attempt]) -> None:
        """These were open in an actor that was ended because it is not wanted any more."""
        for attempt in reversed(attempts):
            self._open -= 1
            (self._suspects if attempt.isolated else self._queue).appendleft(attempt.spec)

    def _actor_died(self, attempt: Attempt, together: int, reason: str) -> str:
        history = self._end_attempt(attempt)
        history.suspect = True
        if together > 1:
            self._retry_later(attempt.spec, 1)
            return _line(attempt.spec, f"was one of {together} in an actor that died, and will be tried alone", reason)
        history.isolated_deaths += 1
        if history.isolated_deaths >= self._max_attempts:
            end = f"was alone in {history.isolated_deaths} actors that died, and is given up"
            return self._give_up(attempt.spec, end, reason)
        self._retry_later(attempt.spec, history.isolated_deaths)
        state = f"was alone in an actor that died, try {history.isolated_deaths} of {self._max_attempts}"
        return _line(attempt.spec, state, reason)

    def _node_gone(self, attempt: Attempt, reason: str) -> str:
        history = self._end_attempt(attempt)
        history.preemptions += 1
        if history.preemptions >= self._max_attempts * PREEMPTIONS_PER_ATTEMPT:
            return self._give_up(attempt.spec, f"lost its node {history.preemptions} times and is given up", reason)
        self._retry_later(attempt.spec, 1)
        return _line(attempt.spec, "lost its node and goes back to the queue", reason)

    def _end_attempt(self, attempt: Attempt) -> _History:
        """The record of a shard whose try is over."""
        self._open -= 1
        history = self._histories.setdefault(attempt.spec.shard_id, _History())
        history.attempts += 1
        return history

    def _retry_later(self, spec: ShardSpec, times: int) -> None:
        wait = min(FIRST_RETRY_SECONDS * 2 ** (times - 1), LONGEST_RETRY_SECONDS)
        self._later_count += 1  # between two that are due at one moment, the first to fail comes first
        heapq.heappush(self._later, (self._clock() + wait, self._later_count, spec))

    def _give_up(self, spec: ShardSpec, end: str, reason: str) -> str:
        del self._histories[spec.shard_id]
        self.failures.append(Failure(spec, reason))
        return _line(spec, end, reason)


def _line(spec: ShardSpec, what: str, reason: str) -> str:
    return f"shard {spec.shard_id} ({spec.place}) {what}: {reason}"
