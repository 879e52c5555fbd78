"""A clip that comes to the encode loop in parts, and what the loop makes of any clip."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.items import ClipInfo, CodedClip

if TYPE_CHECKING:
    from pipeline.steps.encode import CodeStream


class Encoded(NamedTuple):
    """The codes of a clip, and the time that they took."""

    clip: CodedClip
    seconds: float
    """The encoder's time: of a batch, the clip's share by frames."""


class Part(NamedTuple):
    """A part of a long clip: float32 (channels, n), and its number of frames."""

    waveform: np.ndarray
    frames: int


@dataclass(slots=True, eq=False)
class LongClip:
    """A clip that comes to the loop in parts; the loop encodes them one at a time, between batches of short clips."""

    stream: CodeStream
    rank: int
    future: Future[Encoded] = field(default_factory=Future)
    parts: deque[Part] = field(default_factory=deque)
    """Parts that wait to be encoded."""
    info: ClipInfo | None = None
    """Set when the last part has come."""
    seconds: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether a part or the end waits to be encoded."""
        return bool(self.parts) or self.info is not None
