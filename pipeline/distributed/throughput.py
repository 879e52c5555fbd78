"""The speed of a run over its last minutes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ActorFigures:
    """Figures of one actor, or sums over several."""

    encoded_seconds: float = 0.0
    """Seconds of audio that it has encoded since it started."""
    busy_seconds: float = 0.0
    """Seconds in which its encoder was busy since it started."""
    waiting_seconds: float = 0.0
    """Seconds of audio that wait for its encoder."""

    def __add__(self, other: ActorFigures) -> ActorFigures:
        return ActorFigures(
            self.encoded_seconds + other.encoded_seconds,
            self.busy_seconds + other.busy_seconds,
            self.waiting_seconds + other.waiting_seconds,
        )


@dataclass(frozen=True, slots=True)
class _Moment:
    time: float
    encoded_seconds: float
    busy_seconds: float
    actor_seconds: float


class Throughput:
    """Sums over the actors of a run at moments a few seconds apart. Keeps those of the last five minutes."""

    def __init__(self, now: float) -> None:
        self._moments = deque([_Moment(now, 0.0, 0.0, 0.0)])

    def add(self, now: float, encoded_seconds: float, busy_seconds: float, actors: int) -> None:
        """Sums of all actors since the run began, at the moment `now` in seconds; `actors` of them are ready."""
        last = self._moments[-1]
        actor_seconds = last.actor_seconds + actors * (now - last.time)
        self._moments.append(_Moment(now, encoded_seconds, busy_seconds, actor_seconds))
        while len(self._moments) > 2 and self._moments[1].time <= now - WINDOW_SECONDS:
            self._moments.popleft()

    @property
    def speed(self) -> float:
        """Seconds of audio encoded per second."""
        first, last = self._moments[0], self._moments[-1]
        return max(0.0, last.encoded_seconds - first.encoded_seconds) / max(last.time - first.time, 1e-9)

    @property
    def busy(self) -> float:
        """Fraction of their time in which the encoders were busy, 0 to 1."""
        first, last = self._moments[0], self._moments[-1]
        time = last.actor_seconds - first.actor_seconds
        return min(1.0, max(0.0, last.busy_seconds - first.busy_seconds) / time) if time else 0.0
