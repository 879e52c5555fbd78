"""The CPU half of a shard: read and prepare its clips in source order, a chunk at a time. Does not import torch.

In memory at once are the encoded bytes of the clips that are read ahead, one decoded part of a clip (see
pipeline/steps/prepare.py), and one chunk: CHUNK_BYTES and at most one more part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.config import InputConfig, PrepareConfig
from pipeline.items import Clip, ClipPart, Origin, Prepared, RawClip, Reject, ShardSpec
from pipeline.steps.prepare import Preparer, Target
from pipeline.steps.read import read_shard
from pipeline.steps.watchdog import NO_WATCHDOG, Watchdog

CHUNK_BYTES = 8 * 2**20  # of waveforms: so large that handing a chunk over costs little
CHUNK_CLIPS = 256


@dataclass(slots=True)
class Chunk:
    """Neighbouring clips of a shard on their way to the encoder, and the time that it took to prepare them."""

    items: list[Prepared] = field(default_factory=list)
    waveform_bytes: int = 0
    input_bytes: int = 0
    read_seconds: float = 0.0
    prepare_seconds: float = 0.0
    working_on: Origin | None = None
    """The clip that the reader works on next, if it isolates clips: the next chunk begins or continues it."""

    @property
    def full(self) -> bool:
        return self.waveform_bytes >= CHUNK_BYTES or len(self.items) >= CHUNK_CLIPS

    @property
    def finished(self) -> int:
        """Number of clips that end in this chunk: parts of a long clip do not count."""
        return sum(not isinstance(item, ClipPart) for item in self.items)

    def add(self, item: Prepared, raw: RawClip | Reject) -> None:
        """Add an item that `raw` was prepared to, or `raw` itself if it is a reject."""
        self.items.append(item)
        if isinstance(item, Clip | ClipPart):
            self.waveform_bytes += item.waveform.nbytes
        if isinstance(raw, RawClip) and not isinstance(item, ClipPart):
            self.input_bytes += raw.input_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """Where a reader begins. After another reader died, it continues there and isolates the next clips."""

    first: int = 0
    """Position in the shard of the first clip to prepare."""
    isolated_clips: int = 0
    """So many clips are isolated: an empty chunk names each before it is touched, and no chunk holds two of them."""


FROM_THE_START = Resumption()


def prepare_shard(
    spec: ShardSpec,
    input_config: InputConfig,
    prepare_config: PrepareConfig,
    target: Target,
    resumption: Resumption = FROM_THE_START,
    watchdog: Watchdog = NO_WATCHDOG,
) -> Iterator[Chunk]:
    """Read and prepare every clip of a shard in source order; yields a chunk at a time, the last one possibly empty."""
    raw_clips = read_shard(spec, input_config)
    preparer = Preparer(prepare_config, target, watchdog)
    chunk = Chunk()
    while (raw := _read(raw_clips, chunk)) is not None:
        index = raw.origin.index
        if index < resumption.first:
            continue
        if isolated := index < resumption.first + resumption.isolated_clips:
            chunk.working_on = raw.origin
            yield chunk
            chunk = Chunk()
        items = preparer.prepare(raw) if isinstance(raw, RawClip) else iter([raw])
        while (item := _prepare(items, chunk, watchdog)) is not None:
            chunk.add(item, raw)
            if chunk.full or isolated:
                chunk.working_on = raw.origin if isinstance(item, ClipPart) else None
                yield chunk
                chunk = Chunk()
    yield chunk


def _read(raw_clips: Iterator[RawClip | Reject], chunk: Chunk) -> RawClip | Reject | None:
    started = time.perf_counter()
    raw = next(raw_clips, None)
    chunk.read_seconds += time.perf_counter() - started
    return raw


def _prepare(items: Iterator[Prepared], chunk: Chunk, watchdog: Watchdog) -> Prepared | None:
    started = time.perf_counter()
    item = next(items, None)
    watchdog.stop()  # the caller may now wait for the encoder
    chunk.prepare_seconds += time.perf_counter() - started
    return item
