"""Which shard an actor is given next, and what happens to a shard after an attempt: rules only, without Ray.

An attempt at a shard ends in one of six ways:

- **committed**: the shard is done.
- **error**: the shard failed, for example because its input cannot be read. It is retried later, up to `max_attempts`
  attempts.
- **store unavailable**: a store did not answer for long, and no shard was committed since the attempt began. The shard
  is retried and nothing is counted against it. If other shards were committed meanwhile, the store works, and this is
  an error.
- **actor died**, and its node did not. Any of the shards that were open in the actor may be the cause, so all of them
  are retried last, and isolated: each alone in its actor. A shard that was isolated when its actor died is the cause.
  After `max_attempts` such deaths it is given up.
- **node gone**: preempted or broken. The shard is retried next, and nothing is counted against it. Only after ten times
  `max_attempts` lost nodes it is given up, since it may be the cause.
- **given back**: the actor was ended because it is not needed any more. This attempt does not count.
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
OUTAGE_SECONDS = 900.0  # a run ends after a store was unavailable for this long


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a shard: it was given to an actor."""

    spec: ShardSpec
    number: int
    """Counts the attempts at this shard, from 1."""
    isolated: bool
    """Whether no other shard may be open in the same actor."""
    committed_before: int = 0
    """Shards that this run had committed when the attempt began."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A shard that this run has given up, and the error of its last attempt."""

    spec: ShardSpec
    reason: str


@dataclass(slots=True)
class _History:
    """The failed attempts at a shard so far."""

    attempts: int = 0
    errors: int = 0
    isolated_deaths: int = 0
    preemptions: int = 0
    suspect: bool = False
    """An actor died while this shard was open in it."""


class Scheduler:
    """The queue of a run. Keeps the shards that are left and those that were given up, but not the committed ones."""

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
        self._unavailable_since: float | None = None
        self.failures: list[Failure] = []

    @property
    def remaining(self) -> int:
        """Number of shards that are neither committed nor given up."""
        return len(self._queue) + len(self._suspects) + len(self._later) + self._open

    @property
    def store_outage_is_too_long(self) -> bool:
        """Whether a store was unavailable for OUTAGE_SECONDS, so that the run should end."""
        return self._unavailable_since is not None and self._clock() - self._unavailable_since >= OUTAGE_SECONDS

    def next(self, open_shards: int) -> Attempt | None:
        """The next attempt, for an actor that has `open_shards` shards open; None if there is none for it now."""
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
        """The attempt committed its shard."""
        self._open -= 1
        self._committed += 1
        self._unavailable_since = None
        self._histories.pop(done.spec.shard_id, None)

    def failed(self, attempt: Attempt, reason: str) -> str:
        """The attempt ended in an error. Returns a message that says what happens to the shard."""
        history = self._end_attempt(attempt)
        history.errors += 1
        if history.errors >= self._max_attempts:
            return self._give_up(attempt.spec, f"failed {history.errors} times and is given up", reason)
        self._retry_later(attempt.spec, history.errors)
        return _line(attempt.spec, f"failed, attempt {history.errors} of {self._max_attempts}", reason)

    def store_unavailable(self, attempt: Attempt, reason: str) -> str:
        """A store did not answer. Returns a message that says what happens to the shard."""
        if attempt.committed_before < self._committed:
            return self.failed(attempt, reason)
        if self._unavailable_since is None:
            self._unavailable_since = self._clock()
        self._retry_later(attempt.spec, self._end_attempt(attempt).attempts)
        return _line(attempt.spec, "found a store unavailable and goes back to the queue", reason)

    def actor_died(self, attempts: Sequence[Attempt], reason: str) -> list[str]:
        """An actor died with these shards open; its node did not. Returns a message for each shard."""
        return [self._actor_died(attempt, len(attempts), reason) for attempt in attempts]

    def node_gone(self, attempts: Sequence[Attempt], reason: str) -> list[str]:
        """The node of these attempts, or of a task that they need, is gone. Returns a message for each shard."""
        return [self._node_gone(attempt, reason) for attempt in attempts]

    def give_back(self, attempts: Sequence[Attempt]) -> None:
        """These shards were open in an actor that was ended because it is not needed any more."""
        for attempt in reversed(attempts):
            self._open -= 1
            (self._suspects if attempt.isolated else self._queue).appendleft(attempt.spec)

    def _actor_died(self, attempt: Attempt, together: int, reason: str) -> str:
        history = self._end_attempt(attempt)
        history.suspect = True
        if together > 1:
            self._retry_later(attempt.spec, 1)
            return _line(
                attempt.spec, f"was one of {together} in an actor that died, and will be retried alone", reason
            )
        history.isolated_deaths += 1
        if history.isolated_deaths >= self._max_attempts:
            end = f"was alone in {history.isolated_deaths} actors that died, and is given up"
            return self._give_up(attempt.spec, end, reason)
        self._retry_later(attempt.spec, history.isolated_deaths)
        state = f"was alone in an actor that died, attempt {history.isolated_deaths} of {self._max_attempts}"
        return _line(attempt.spec, state, reason)

    def _node_gone(self, attempt: Attempt, reason: str) -> str:
        history = self._end_attempt(attempt)
        history.preemptions += 1
        if history.preemptions >= self._max_attempts * PREEMPTIONS_PER_ATTEMPT:
            return self._give_up(attempt.spec, f"lost its node {history.preemptions} times and is given up", reason)
        self._retry_later(attempt.spec, 1)
        return _line(attempt.spec, "lost its node and goes back to the queue", reason)

    def _end_attempt(self, attempt: Attempt) -> _History:
        """Count the end of an attempt; returns the history of its shard."""
        self._open -= 1
        history = self._histories.setdefault(attempt.spec.shard_id, _History())
        history.attempts += 1
        return history

    def _retry_later(self, spec: ShardSpec, times: int) -> None:
        wait = min(FIRST_RETRY_SECONDS * 2 ** (times - 1), LONGEST_RETRY_SECONDS)
        self._later_count += 1  # orders the shards that are due at the same moment
        heapq.heappush(self._later, (self._clock() + wait, self._later_count, spec))

    def _give_up(self, spec: ShardSpec, end: str, reason: str) -> str:
        del self._histories[spec.shard_id]
        self.failures.append(Failure(spec, reason))
        return _line(spec, end, reason)


def _line(spec: ShardSpec, what: str, reason: str) -> str:
    return f"shard {spec.shard_id} ({spec.place}) {what}: {reason}"
