"""One shard from its specification to its manifest, in one process and without Ray.

`encode_shard` composes the steps. `tokenize_shard` runs it with chunks that are prepared in this process; an actor of a
distributed run, with chunks that other processes prepare. Both publish the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from pipeline.codecs.machine import Machine
from pipeline.config import Config
from pipeline.dataset.commit import AttemptInfo, publish_shard, replace_shard, shard_metadata
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.provenance import RunRecord
from pipeline.items import CodedClip, Origin, Reject, ShardSpec
from pipeline.shard.chunks import Chunk, prepare_shard
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.shard.long_clip import Encoded
from pipeline.shard.submitter import ClipSubmitter
from pipeline.steps.encode import Encoder
from pipeline.steps.prepare import Target
from pipeline.steps.records import codes_table, rejects_table
from pipeline.steps.write import to_parquet

FEW_MISSING = 2
"""Files of a shard that may be missing, whatever fraction of it they are."""
STAGES = ("read", "prepare", "encode", "write")


class SourcesMissing(RuntimeError):
    """So many files of a shard are missing that something else than these files must be wrong."""


class OpenShard:
    """The results of a shard: codes and rejects, added in any order until every clip has one of them."""

    def __init__(
        self,
        spec: ShardSpec,
        attempt: int = 1,
        *,
        max_missing_fraction: float = 1.0,
        replaces: ShardManifest | None = None,
    ) -> None:
        """`replaces` is the shard as it was committed, where it is done again because of its rejects."""
        self.spec = spec
        self.attempt = attempt
        self._max_missing_fraction = max_missing_fraction
        self._replaces = replaces
        self._missing_clips = 0
        self._missing_files: set[str] = set()
        self.started_at = time.time()
        self.coded: list[CodedClip] = []
        self.rejects: list[Reject] = []
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.input_bytes = 0
        self._expected = 0

    def add_chunk(self, chunk: Chunk) -> None:
        """Count a chunk and keep its rejects. The codes of its clips follow with `add_codes`.

        Raises SourcesMissing once too many files are missing.
        """
        self.seconds["read"] += chunk.read_seconds
        self.seconds["prepare"] += chunk.prepare_seconds
        self.input_bytes += chunk.input_bytes
        self._expected += chunk.finished
        rejects = [item for item in chunk.items if isinstance(item, Reject)]
        self.rejects.extend(rejects)
        missing = [reject.origin.source for reject in rejects if reject.reason == "missing"]
        self._missing_clips += len(missing)
        self._missing_files.update(missing)  # of one file there may be many clips
        if self.spec.clips is not None:
            self._check_sources(self.spec.clips)

    def add_codes(self, encoded: Encoded) -> None:
        self.coded.append(encoded.clip)
        self.seconds["encode"] += encoded.seconds

    def publish(
        self, layout: Layout, record: RunRecord, row_group_rows: int, machine: Machine | None = None
    ) -> ShardManifest:
        """Write data and rejects, then the manifest, which commits them and says on what machine they were made.

        Raises RuntimeError unless every clip is a row or a reject, exactly once, and SourcesMissing if too many are
        missing.
        """
        self._check_complete()
        self._check_sources(self._expected)
        started = time.perf_counter()
        codes = codes_table(self.spec.shard_id, self.coded, record.code_columns, record.model.sample_rate)
        metadata = record.file_metadata()
        rejects = b""
        if self.rejects:
            rejects = to_parquet(rejects_table(self.spec.shard_id, self.rejects), metadata, row_group_rows)
        summary = shard_metadata(self.spec.shard_id, self._expected, self.input_bytes, rejects)
        data = to_parquet(codes, metadata | summary, row_group_rows)
        self.seconds["write"] += time.perf_counter() - started
        attempt = AttemptInfo(self.attempt, self.started_at, self.seconds, machine or {})
        if self._replaces is not None:
            return replace_shard(layout, self.spec, data, rejects, attempt, self._replaces)
        return publish_shard(layout, self.spec, data, rejects, attempt)

    def _check_sources(self, clips: int) -> None:
        missing, files, allowed = self._missing_clips, len(self._missing_files), self._max_missing_fraction
        many = files > FEW_MISSING and missing > allowed * clips
        if allowed < 1 and (many or (missing == clips and files > 1)):
            raise SourcesMissing(
                f"{self.spec.place}: the files of {missing:,} of {clips:,} clips are missing, which is an outage and "
                "not a few lost files: is the disk mounted, the bucket there? Bring them back and give the same "
                "command; or set run.max_missing_fraction=1 to have such clips rejected as missing"
            )

    def _check_complete(self) -> None:
        origins: list[Origin] = [clip.info.origin for clip in self.coded] + [item.origin for item in self.rejects]
        if sorted(origin.index for origin in origins) != list(range(self._expected)):
            raise RuntimeError(f"shard {self.spec.shard_id}: {len(origins)} results for {self._expected} clips")


def target_of(record: RunRecord) -> Target:
    """The waveforms that the run's model takes."""
    model = record.model
    return Target(
        sample_rate=model.sample_rate,
        channels=model.channels,
        samples_per_frame=model.samples_per_frame,
        max_seconds=model.codec.longest_seconds,
    )


def encode_shard(shard: OpenShard, chunks: Iterable[Chunk], loop: EncodeLoop, target: Target) -> None:
    """Encode the clips of a shard as its chunks come, until every one is accounted for.

    Raises what `chunks` raises, and the encoder's error for a clip that could not be encoded.
    """
    with loop.register_shard() as rank, ClipSubmitter(loop, target, rank) as submitter:
        for chunk in chunks:
            shard.add_chunk(chunk)
            for item in chunk.items:
                submitter.submit(item)
    for encoded in submitter.results():
        shard.add_codes(encoded)


def tokenize_shard(
    spec: ShardSpec, encoder: Encoder, config: Config, record: RunRecord, replaces: ShardManifest | None = None
) -> ShardManifest:
    """Read, prepare, encode and publish one shard in this process."""
    shard = OpenShard(spec, max_missing_fraction=config.run.max_missing_fraction, replaces=replaces)
    target = target_of(record)
    with EncodeLoop(encoder, config.batch.max_frames) as loop:
        encode_shard(shard, prepare_shard(spec, config.input, config.prepare, target), loop, target)
    return shard.publish(Layout(config.output.uri), record, config.output.row_group_rows, encoder.machine)
