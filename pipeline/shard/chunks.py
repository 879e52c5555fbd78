"""The CPU half of a shard: read and prepare its clips in source order, a chunk at a time. Does not import torch.

In memory at once are the encoded bytes of the clips that are read ahead, one decoded part of a clip (see
pipeline/steps/prepare.py), and one chunk: CHUNK_BYTES and at most one more part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.config import InputConfig, PrepareConfig
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
    recordings = read_recordings(spec, input_config)
    splitter = Splitter(input_config.split_at_pauses, watchdog)
    preparer = Preparer(prepare_config, targets, watchdog, signals)
    chunk = Chunk.of(len(targets))
    before = resumption.place.clips
    while (recording := _read(recordings, chunk)) is not None:
        if recording.origin.index < resumption.place.recording:
            continue
        chunk.place = place = Place(recording.origin.index, before)
        if splitter.config is not None and resumption.isolated_clips and resumption.isolates(before):
            chunk.working_on, chunk.splits = replace(recording.origin, index=max(before, resumption.first)), True
            yield chunk
            chunk = Chunk.of(len(targets), place)
        parts = _split(splitter, recording, chunk)
        before += len(parts)
        for raw in number_parts(parts, place.clips):
            index = raw.origin.index
            if index < resumption.first:
                continue
            if isolated := resumption.isolates(index):
                chunk.working_on = raw.origin
                yield chunk
                chunk = Chunk.of(len(targets), place)
            items = preparer.prepare(raw) if isinstance(raw, RawClip) else ((at, raw) for at in range(len(targets)))
            ended = 0
            while (prepared := _prepare(items, chunk, watchdog)) is not None:
                chunk.add(*prepared)
                is_part = isinstance(prepared[1], ClipPart)
                ended += not is_part
                if ended == len(targets) and isinstance(raw, RawClip):
                    chunk.input_bytes += raw.input_bytes
                if (chunk.full or isolated) and (is_part or ended == len(targets)):
                    chunk.working_on = raw.origin if is_part else None
                    yield chunk
                    chunk = Chunk.of(len(targets), place)
    yield chunk


def _read(raw_clips: Iterator[RawClip | Reject], chunk: Chunk) -> RawClip | Reject | None:
    started = time.perf_counter()
    raw = next(raw_clips, None)
    chunk.read_seconds += time.perf_counter() - started
    return raw


def _split(splitter: Splitter, recording: RawClip | Reject, chunk: Chunk) -> Sequence[RawClip | Reject]:
    started = time.perf_counter()
    parts = splitter.split(recording)
    chunk.prepare_seconds += time.perf_counter() - started
    return parts


def _prepare(items: Iterator[tuple[int, Prepared]], chunk: Chunk, watchdog: Watchdog) -> tuple[int, Prepared] | None:
    started = time.perf_counter()
    item = next(items, None)
    watchdog.stop()  # the caller may now wait for the encoder
    chunk.prepare_seconds += time.perf_counter() - started
    return item
