"""One shard from its specification to its manifest, in one process and without Ray.

`encode_shard` composes the steps, for one codec or several. `tokenize_shards` runs it with chunks that are prepared in
this process; an actor of a distributed run, with chunks that other processes prepare. Both publish the same bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pipeline.codecs.machine import Machine
from pipeline.config import Config
from pipeline.dataset.commit import AttemptInfo, publish_shard, replace_shard, shard_metadata
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, read_manifest
from pipeline.dataset.provenance import RunRecord
from pipeline.items import CodedClip, Origin, Reject, ShardSpec
from pipeline.shard.chunks import Chunk, prepare_shard
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.shard.long_clip import Encoded
from pipeline.shard.submitter import ClipSubmitter
from pipeline.steps.prepare import Target
from pipeline.steps.records import codes_table, rejects_table
from pipeline.steps.write import to_parquet

if TYPE_CHECKING:
    from pipeline.steps.encode import Encoder

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

    def add_chunk(self, chunk: Chunk, position: int = 0) -> None:
        """Count a chunk and keep the rejects of the target at this position. The codes of its clips follow with
        `add_codes`. Targets share the chunk's time equally.

        Raises SourcesMissing once too many files are missing.
        """
        self.seconds["read"] += chunk.read_seconds / len(chunk.items)
        self.seconds["prepare"] += chunk.prepare_seconds / len(chunk.items)
        self.input_bytes += chunk.input_bytes
        self._expected += chunk.finished
        rejects = [item for item in chunk.items[position] if isinstance(item, Reject)]
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


@dataclass(frozen=True, slots=True)
class CodecJob:
    """What one codec of a run is to do."""

    config: Config
    """Names the model, and the output that its codes go to."""
    record: RunRecord


class CodecWorker:
    """One codec in this process: its encode loop, which the caller starts and closes, and where its shards go."""

    def __init__(self, job: CodecJob, encoder: Encoder, turn: threading.Lock | None = None) -> None:
        """`turn` is a lock that the workers of one process share, if there are several."""
        self._config, self._record = job.config, job.record
        self._layout = Layout(job.config.output.uri)
        self.target = target_of(job.record)
        self.machine: Machine = encoder.machine
        self.loop = EncodeLoop(encoder, job.config.batch.max_frames, turn)

    def committed(self, spec: ShardSpec, replaces: ShardManifest | None) -> ShardManifest | None:
        """The manifest of the shard, if it is committed and is not the one that this run replaces."""
        try:
            found = read_manifest(self._layout, spec.shard_id)
        except FileNotFoundError:
            return None
        return None if found == replaces else found

    def open_shard(self, spec: ShardSpec, attempt: int, replaces: ShardManifest | None) -> OpenShard:
        allowed = self._config.run.max_missing_fraction
        return OpenShard(spec, attempt, max_missing_fraction=allowed, replaces=replaces)

    def publish(self, shard: OpenShard) -> ShardManifest:
        return shard.publish(self._layout, self._record, self._config.output.row_group_rows, self.machine)


Prepare: TypeAlias = "Callable[[Sequence[Target]], Iterable[Chunk]]"
"""Reads a shard and prepares it for each target."""


def encode_shard(
    spec: ShardSpec,
    prepare: Prepare,
    workers: Sequence[CodecWorker],
    replaces: Sequence[ShardManifest | None],
    attempt: int = 1,
) -> list[ShardManifest]:
    """Encode the clips of a shard with each codec as its chunks come, and publish the shard of each codec for itself,
    once every clip is accounted for. Returns the manifests, one for each worker.

    Of several codecs, one that has committed the shard already is left out. `replaces` has for each the manifest of
    the shard that is done again because of its rejects.

    Raises what `prepare` raises, and the encoder's error for a clip that could not be encoded: that of the first codec
    that failed, after the others have published their shards.
    """
    manifests: dict[CodecWorker, ShardManifest] = {}
    open_shards: dict[CodecWorker, OpenShard] = {}
    for worker, old in zip(workers, replaces, strict=True):
        if len(workers) > 1 and (found := worker.committed(spec, old)) is not None:
            manifests[worker] = found
        else:
            open_shards[worker] = worker.open_shard(spec, attempt, old)
    failures: list[Exception] = []
    for worker, submitter in _submit(open_shards, prepare):
        try:
            for encoded in submitter.results():
                open_shards[worker].add_codes(encoded)
            manifests[worker] = worker.publish(open_shards[worker])
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return [manifests[worker] for worker in workers]


def _submit(shards: Mapping[CodecWorker, OpenShard], prepare: Prepare) -> list[tuple[CodecWorker, ClipSubmitter]]:
    """Hand every clip of a shard to the encode loop of each worker."""
    if not shards:
        return []
    with ExitStack() as stack:
        submitters: list[tuple[CodecWorker, ClipSubmitter]] = []
        for worker in shards:
            rank = stack.enter_context(worker.loop.register_shard())
            submitters.append((worker, stack.enter_context(ClipSubmitter(worker.loop, worker.target, rank))))
        for chunk in prepare([worker.target for worker in shards]):
            for position, (worker, submitter) in enumerate(submitters):
                shards[worker].add_chunk(chunk, position)
                for item in chunk.items[position]:
                    submitter.submit(item)
    return submitters


def tokenize_shard(
    spec: ShardSpec, encoder: Encoder, config: Config, record: RunRecord, replaces: ShardManifest | None = None
) -> ShardManifest:
    """Read, prepare, encode and publish one shard with one codec in this process."""
    (manifest,) = tokenize_shards(spec, [(CodecJob(config, record), encoder)], [replaces])
    return manifest


def tokenize_shards(
    spec: ShardSpec, codecs: Sequence[tuple[CodecJob, Encoder]], replaces: Sequence[ShardManifest | None]
) -> list[ShardManifest]:
    """`tokenize_shard` with several codecs, whose configurations differ in model and output only: the shard is read
    and decoded once.
    """
    turn = threading.Lock()
    workers = [CodecWorker(job, encoder, turn) for job, encoder in codecs]
    config = codecs[0][0].config
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker.loop)
        signals = codecs[0][0].record.signals
        prepare = partial(prepare_shard, spec, config.input, config.prepare, signals=signals)
        return encode_shard(spec, prepare, workers, replaces)
