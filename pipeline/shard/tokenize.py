"""One shard from its specification to its manifest, in one process and without Ray.

`tokenize_shard` is the plainest composition of the steps, and so the oracle that the distributed one is compared with:
both publish the same bytes. `OpenShard` and `prepare_shard` are what they share.
"""

from __future__ import annotations

import time

from pipeline.config import Config
from pipeline.dataset.commit import AttemptInfo, publish_shard, shard_metadata
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.provenance import RunRecord
from pipeline.items import Clip, ClipEnd, ClipPart, CodedClip, Origin, Reject, ShardSpec
from pipeline.shard.chunks import Chunk, prepare_shard
from pipeline.steps.batch import Batcher
from pipeline.steps.encode import CodeStream, Encoder
from pipeline.steps.prepare import Target
from pipeline.steps.records import codes_table, rejects_table
from pipeline.steps.write import to_parquet

STAGES = ("read", "prepare", "encode", "write")


class OpenShard:
    """The results of a shard, gathered in any order until every clip is accounted for."""

    def __init__(self, spec: ShardSpec, attempt: int = 1) -> None:
        self.spec = spec
        self.attempt = attempt
        self.started_at = time.time()
        self.coded: list[CodedClip] = []
        self.rejects: list[Reject] = []
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.input_bytes = 0
        self._expected = 0

    def add_chunk(self, chunk: Chunk) -> None:
        """Take note of a chunk; its clips are to be encoded."""
        self.seconds["read"] += chunk.read_seconds
        self.seconds["prepare"] += chunk.prepare_seconds
        self.input_bytes += chunk.input_bytes
        self._expected += chunk.finished
        self.rejects.extend(item for item in chunk.items if isinstance(item, Reject))

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
        rejects = b""
        if self.rejects:
            rejects = to_parquet(rejects_table(self.spec.shard_id, self.rejects), metadata, row_group_rows)
        summary = shard_metadata(self.spec.shard_id, self._expected, self.input_bytes, rejects)
        data = to_parquet(codes, metadata | summary, row_group_rows)
        self.seconds["write"] += time.perf_counter() - started
        return publish_shard(layout, self.spec, data, rejects, AttemptInfo(self.attempt, self.started_at, self.seconds))

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
    long_clip = _LongClip(encoder, shard)
    for chunk in prepare_shard(spec, config.input, config.prepare, target):
        shard.add_chunk(chunk)
        for item in chunk.items:
            if isinstance(item, Clip):
                batcher.add(item, target.frames(item.info.num_samples))
            else:
                long_clip.take(item)
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


class _LongClip:
    """The codes of the one long clip that a shard is in the middle of."""

    def __init__(self, encoder: Encoder, shard: OpenShard) -> None:
        self._encoder = encoder
        self._shard = shard
        self._codes: CodeStream | None = None
        self._seconds = 0.0

    def take(self, item: ClipPart | ClipEnd | Reject) -> None:
        """Encode a part; at the end the shard gets the codes, at a reject nothing."""
        if isinstance(item, ClipPart):
            if item.start == 0:
                self._codes, self._seconds = self._encoder.stream(), 0.0
            assert self._codes is not None
            started = time.perf_counter()
            self._codes.step(item.waveform)
            self._seconds += time.perf_counter() - started
        elif isinstance(item, ClipEnd):
            assert self._codes is not None
            self._shard.add_codes(self._codes.finish(item.info), self._seconds)
            self._codes = None
        else:
            self._codes = None
