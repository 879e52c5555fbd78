"""The CPU half of a shard: read and prepare its clips in source order, a chunk at a time. Does not import torch.

In memory at once are the encoded bytes of the clips that are read ahead, one decoded part of a clip (see
pipeline/steps/prepare.py), and one chunk: CHUNK_BYTES and at most one more part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.config import PrepareConfig
from pipeline.input_config import InputConfig
from pipeline.items import Clip, ClipPart, Origin, Prepared, RawClip, Reject, ShardSpec
from pipeline.steps.clip_signals import NO_SIGNALS, Signals
from pipeline.steps.prepare import Preparer, Target
from pipeline.steps.read import read_recordings
from pipeline.steps.read.pauses import Splitter, number_parts
from pipeline.steps.watchdog import NO_WATCHDOG, Watchdog

CHUNK_BYTES = 8 * 2**20  # of waveforms: so large that handing a chunk over costs little
CHUNK_CLIPS = 256


@dataclass(frozen=True, slots=True)
class Place:
    """A recording of a shard: a clip, or several where it is cut at pauses."""

    recording: int = 0
    """Its position among the recordings."""
    clips: int = 0
    """Clips before it."""


@dataclass(slots=True)
class Chunk:
    """Neighbouring clips of a shard on their way to the encoder, and the time that it took to prepare them."""

    items: tuple[list[Prepared], ...] = ()
    """For each target, what its clips became. Every clip that ends in the chunk ends in all of the lists."""
    waveform_bytes: int = 0
    input_bytes: int = 0
    read_seconds: float = 0.0
    prepare_seconds: float = 0.0
    working_on: Origin | None = None
    """The clip that the reader works on next, if it isolates clips: the next chunk begins or continues it."""
    place: Place | None = None
    """The recording that the reader works on next; None in the last chunk."""
    splits: bool = False
    """Whether it looks for the pauses of that recording next, as `working_on`."""

    @classmethod
    def of(cls, targets: int, place: Place | None = None) -> Chunk:
        """An empty chunk for so many targets."""
        return cls(tuple([] for _ in range(targets)), place=place)

    @property
    def full(self) -> bool:
        return self.waveform_bytes >= CHUNK_BYTES or any(len(items) >= CHUNK_CLIPS for items in self.items)

    @property
    def finished(self) -> int:
        """Number of clips that end in this chunk: parts of a long clip do not count."""
        return sum(not isinstance(item, ClipPart) for item in self.items[0]) if self.items else 0

    def add(self, position: int, item: Prepared) -> None:
        """Add what a clip became for the target at this position."""
        self.items[position].append(item)
        if isinstance(item, Clip | ClipPart):
            self.waveform_bytes += item.waveform.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """Where a reader begins. After another reader died, it continues there and isolates the next clips."""

    first: int = 0
    """Position in the shard of the first clip to prepare."""
    isolated_clips: int = 0
    """So many clips are isolated: an empty chunk names each before it is touched, and no chunk holds two of them."""
    place: Place = Place()
    """The recording of that clip, or one before."""

    def isolates(self, index: int) -> bool:
        return index < self.first + self.isolated_clips


FROM_THE_START = Resumption()


def prepare_shard(
    spec: ShardSpec,
    input_config: InputConfig,
    prepare_config: PrepareConfig,
    targets: Sequence[Target],
    resumption: Resumption = FROM_THE_START,
    watchdog: Watchdog = NO_WATCHDOG,
    signals: Signals = NO_SIGNALS,
) -> Iterator[Chunk]:
    """Read every clip of a shard in source order, prepare it for each target and measure its signals; yields a chunk at
    a time, the last one possibly empty.
    """
    splitter = Splitter(input_config.split_at_pauses, watchdog)
    filling = _Filling(targets, Preparer(prepare_config, targets, watchdog, signals), splitter, resumption, watchdog)
    for recording in filling.recordings(read_recordings(spec, input_config)):
        yield from filling.isolate_pauses(recording)
        for raw in filling.clips(recording):
            yield from filling.prepare(raw)
    yield filling.chunk


class _Filling:
    """The chunk that is being filled, and what fills it."""

    def __init__(
        self,
        targets: Sequence[Target],
        preparer: Preparer,
        splitter: Splitter,
        resumption: Resumption,
        watchdog: Watchdog,
    ) -> None:
        self._targets, self._preparer, self._splitter = len(targets), preparer, splitter
        self._resumption, self._watchdog = resumption, watchdog
        self._place = resumption.place
        self.chunk = Chunk.of(self._targets)

    def recordings(self, recordings: Iterator[RawClip | Reject]) -> Iterator[RawClip | Reject]:
        """Those from the first one on that has clips to prepare."""
        while (recording := self._read(recordings)) is not None:
            if recording.origin.index >= self._resumption.place.recording:
                self._place = self.chunk.place = replace(self._place, recording=recording.origin.index)
                yield recording

    def _read(self, recordings: Iterator[RawClip | Reject]) -> RawClip | Reject | None:
        started = time.perf_counter()
        recording = next(recordings, None)
        self.chunk.read_seconds += time.perf_counter() - started
        return recording

    def isolate_pauses(self, recording: RawClip | Reject) -> Iterator[Chunk]:
        """Name the recording before its pauses are looked for, if its first clips are isolated."""
        resumption, clips = self._resumption, self._place.clips
        if self._splitter.config is not None and resumption.isolated_clips and resumption.isolates(clips):
            origin = replace(recording.origin, index=max(clips, resumption.first))
            yield self._hand_over(origin, splits=True)

    def clips(self, recording: RawClip | Reject) -> Iterator[RawClip | Reject]:
        """The recording, or what it is cut into; without clips before the first one to prepare."""
        started = time.perf_counter()
        parts = self._splitter.split(recording)
        self.chunk.prepare_seconds += time.perf_counter() - started
        before = self._place.clips
        self._place = replace(self._place, clips=before + len(parts))
        return (raw for raw in number_parts(parts, before) if raw.origin.index >= self._resumption.first)

    def prepare(self, raw: RawClip | Reject) -> Iterator[Chunk]:
        """Add what a clip becomes for each target; yields the chunks that are full then, or end with the clip."""
        if isolated := self._resumption.isolates(raw.origin.index):
            yield self._hand_over(raw.origin)
        ended = 0
        for position, item in self._prepared(raw):
            self.chunk.add(position, item)
            is_part = isinstance(item, ClipPart)
            ended += not is_part
            if ended == self._targets and isinstance(raw, RawClip):
                self.chunk.input_bytes += raw.input_bytes
            if (self.chunk.full or isolated) and (is_part or ended == self._targets):
                yield self._hand_over(raw.origin if is_part else None)

    def _prepared(self, raw: RawClip | Reject) -> Iterator[tuple[int, Prepared]]:
        if isinstance(raw, Reject):
            yield from ((position, raw) for position in range(self._targets))
            return
        items = self._preparer.prepare(raw)
        while (item := self._next(items)) is not None:
            yield item

    def _next(self, items: Iterator[tuple[int, Prepared]]) -> tuple[int, Prepared] | None:
        started = time.perf_counter()
        item = next(items, None)
        self._watchdog.stop()  # the caller may now wait for the encoder
        self.chunk.prepare_seconds += time.perf_counter() - started
        return item

    def _hand_over(self, working_on: Origin | None, *, splits: bool = False) -> Chunk:
        """The chunk as it is; an empty one takes its place."""
        chunk, self.chunk = self.chunk, Chunk.of(self._targets, self.chunk.place)
        chunk.working_on, chunk.splits = working_on, splits
        return chunk
