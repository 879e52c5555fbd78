"""The CPU half of a shard: read and prepare its clips, in source order, a chunk at a time. Loads no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.config import InputConfig, PrepareConfig
from pipeline.items import Clip, RawClip, Reject, ShardSpec
from pipeline.prepare import Target, prepare_clip
from pipeline.read import read_shard

CHUNK_BYTES = 8 * 2**20  # of waveform: large enough that handing it over costs nothing, small enough to flow
CHUNK_CLIPS = 256


@dataclass(slots=True)
class Chunk:
    """Neighbouring clips of a shard on their way to the encoder, and what it took to prepare them."""

    items: list[Clip | Reject] = field(default_factory=list)
    waveform_bytes: int = 0
    input_bytes: int = 0
    read_seconds: float = 0.0
    prepare_seconds: float = 0.0

    @property
    def full(self) -> bool:
        return self.waveform_bytes >= CHUNK_BYTES or len(self.items) >= CHUNK_CLIPS


def prepare_shard(
    spec: ShardSpec, input_config: InputConfig, prepare_config: PrepareConfig, target: Target
) -> Iterator[Chunk]:
    """Read and prepare every clip of a shard, in source order, a chunk at a time."""
    raw_clips = read_shard(spec, input_config)
    chunk = Chunk()
    while True:
        started = time.perf_counter()
        raw = next(raw_clips, None)
        read = time.perf_counter()
        chunk.read_seconds += read - started
        if raw is None:
            break
        item: Clip | Reject
        if isinstance(raw, RawClip):
            item = prepare_clip(raw, prepare_config, target)
            chunk.input_bytes += len(raw.data)
            chunk.prepare_seconds += time.perf_counter() - read
        else:
            item = raw
        if isinstance(item, Clip):
            chunk.waveform_bytes += item.waveform.nbytes
        chunk.items.append(item)
        if chunk.full:
            yield chunk
            chunk = Chunk()
    yield chunk
