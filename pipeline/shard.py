"""One shard from its specification to its manifest, in one process and without Ray.

`tokenize_shard` is the plainest composition of the steps, and so the oracle that the distributed one is compared with:
both publish the same bytes. `OpenShard` and `prepare_shard` are what they share.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.batch import Batcher
from pipeline.config import Config, InputConfig, PrepareConfig
from pipeline.encode import Encoder
from pipeline.items import Clip, CodedClip, Origin, RawClip, Reject, ShardSpec
from pipeline.layout import Layout
from pipeline.manifest import ShardManifest, commit
from pipeline.prepare import Target, prepare_clip
from pipeline.provenance import RunRecord
from pipeline.read import read_shard
from pipeline.records import codes_table, rejects_table
from pipeline.write import write_table

CHUNK_BYTES = 8 * 2**20  # of waveform: large enough that handing it over costs nothing, small enough to flow
CHUNK_CLIPS = 256
STAGES = ("read", "prepare", "encode", "write")


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


class OpenShard:
    """The results of a shard, gathered in any order until every clip is accounted for."""

    def __init__(self, spec: ShardSpec) -> None:
        self.spec = spec
        self.coded: list[CodedClip] = []
        self.rejects: list[Reject] = []
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.input_bytes = 0
        self._expected = 0

    def add_chunk(self, chunk: Chunk) -> list[Clip]:
        """Take note of a chunk; returns its clips, which are to be encoded."""
        self.seconds["read"] += chunk.read_seconds
        self.seconds["prepare"] += chunk.prepare_seconds
        self.input_bytes += chunk.input_bytes
        self._expected += len(chunk.items)
        self.rejects.extend(item for item in chunk.items if isinstance(item, Reject))
        return [item for item in chunk.items if isinstance(item, Clip)]

    def add_codes(self, coded: CodedClip, encode_seconds: float) -> None:
        self.coded.append(coded)
        self.seconds["encode"] += encode_seconds

    @property
    def missing(self) -> int:
        """Clips of the chunks so far whose codes have not come yet."""
        return self._expected - len(self.coded) - len(self.rejects)

    def publish(self, layout: Layout, record: RunRecord, row_group_rows: int) -> ShardManifest:
        """Write data and rejects, then the manifest, which commits them. Every clip must be a row or a reject, once."""
        self._check_complete()
        started = time.perf_counter()
        codes = codes_table(
            self.spec.shard_id,
            self.coded,
            record.num_quantizers,
            record.model.codebook_size,
            record.model.sample_rate,
        )
        metadata = record.file_metadata()
        if self.rejects:
            rejects = rejects_table(self.spec.shard_id, self.rejects)
            write_table(layout.rejects(self.spec), rejects, metadata, row_group_rows)
        written = write_table(layout.data(self.spec), codes, metadata, row_group_rows)
        self.seconds["write"] += time.perf_counter() - started
        manifest = ShardManifest(
            shard_id=self.spec.shard_id,
            split=self.spec.split,
            uri=self.spec.uri,
            version=self.spec.version,
            fingerprint=record.fingerprint,
            rows=len(self.coded),
            rejects=len(self.rejects),
            rejects_by_reason=dict(Counter(reject.reason for reject in self.rejects)),
            audio_seconds=sum(clip.info.num_samples for clip in self.coded) / record.model.sample_rate,
            frames=sum(clip.codes.shape[1] for clip in self.coded),
            input_bytes=self.input_bytes,
            output_bytes=written.size,
            sha256=written.sha256,
            seconds={stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            versions=record.versions,
        )
        commit(layout, manifest)
        return manifest

    def _check_complete(self) -> None:
        origins: list[Origin] = [clip.info.origin for clip in self.coded] + [item.origin for item in self.rejects]
        if sorted(origin.index for origin in origins) != list(range(self._expected)):
            raise RuntimeError(f"shard {self.spec.shard_id}: {len(origins)} results for {self._expected} clips")


def target_of(record: RunRecord) -> Target:
    """What the run's model takes."""
    model = record.model
    return Target(sample_rate=model.sample_rate, channels=model.channels, samples_per_frame=model.samples_per_frame)


def tokenize_shard(spec: ShardSpec, encoder: Encoder, config: Config, record: RunRecord) -> ShardManifest:
    """Read, prepare, batch, encode and publish one shard, one thing after the other."""
    shard = OpenShard(spec)
    target = target_of(record)
    batcher: Batcher[Clip] = Batcher(config.batch.max_frames)
    for chunk in prepare_shard(spec, config.input, config.prepare, target):
        for clip in shard.add_chunk(chunk):
            batcher.add(clip, target.frames(clip.info.num_samples))
        while batcher.full:
            _encode_batch(encoder, batcher.take(), shard)
    while batch := batcher.take():
        _encode_batch(encoder, batch, shard)
    return shard.publish(Layout(config.output.uri), record, config.output.row_group_rows)


def _encode_batch(encoder: Encoder, batch: list[Clip], shard: OpenShard) -> None:
    started = time.perf_counter()
    coded = encoder.encode(batch)
    each = (time.perf_counter() - started) / len(batch)
    for clip in coded:
        shard.add_codes(clip, each)
