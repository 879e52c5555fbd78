"""One shard from its specification to its manifest, in one process and without Ray.

`tokenize_shard` is the plainest composition of the steps, and so the oracle that the distributed one is compared with:
both publish the same bytes. `OpenShard` and `prepare_shard` are what they share.
"""

from __future__ import annotations

import time
from collections import Counter

from pipeline.batch import Batcher
from pipeline.chunk import Chunk, prepare_shard
from pipeline.config import Config
from pipeline.encode import Encoder
from pipeline.items import Clip, CodedClip, Origin, Reject, ShardSpec
from pipeline.layout import Layout
from pipeline.manifest import ShardManifest, commit
from pipeline.prepare import Target
from pipeline.provenance import RunRecord
from pipeline.records import codes_table, rejects_table
from pipeline.write import Written, write_table

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
        refused = Written(0, "")
        if self.rejects:
            rejects = rejects_table(self.spec.shard_id, self.rejects)
            refused = write_table(layout.rejects(self.spec), rejects, metadata, row_group_rows)
        written = write_table(layout.data(self.spec), codes, metadata, row_group_rows)
        self.seconds["write"] += time.perf_counter() - started
        manifest = ShardManifest(
            shard_id=self.spec.shard_id,
            split=self.spec.split,
            uri=self.spec.uri,
            version=self.spec.version,
            input_size=self.spec.size,
            fingerprint=record.fingerprint,
            rows=len(self.coded),
            rejects=len(self.rejects),
            rejects_by_reason=dict(Counter(reject.reason for reject in self.rejects)),
            audio_seconds=sum(clip.info.num_samples for clip in self.coded) / record.model.sample_rate,
            frames=sum(clip.codes.shape[1] for clip in self.coded),
            input_bytes=self.input_bytes,
            output_bytes=written.size,
            sha256=written.sha256,
            rejects_bytes=refused.size,
            rejects_sha256=refused.sha256,
            attempt=self.attempt,
            started_at=round(self.started_at, 3),
            finished_at=round(time.time(), 3),
            seconds={stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            versions=record.versions,
        )
        return commit(layout, manifest)

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
