"""The Ray actor: a thin shell around a replica of the codec and the shards that are open in it."""

from __future__ import annotations

import logging
import os
import threading

import torch

from pipeline import logs
from pipeline.config import Config
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.provenance import RunRecord
from pipeline.distributed.reader_task import prepare_remotely, this_node
from pipeline.distributed.throughput import ActorFigures
from pipeline.items import Clip, ClipEnd, ClipPart, CodedClip, Prepared, Reject, ShardSpec
from pipeline.shard.chunks import Chunk
from pipeline.shard.encode_loop import Deliver, EncodeLoop, LongClip
from pipeline.shard.tokenize import OpenShard, target_of
from pipeline.steps.encode import Encoder, load_encoder
from pipeline.steps.prepare import Target
from pipeline.steps.records import clip_id

logger = logging.getLogger(__name__)


class TokenizerActor:
    """One replica of the codec. Each call of `tokenize` runs in a thread of its own and shares the encode loop."""

    def __init__(self, config: Config, record: RunRecord, run_id: str) -> None:
        """Its log lines are in the standard error of its Ray worker."""
        logs.configure(config.run.log_format, everything=True, run=run_id, process="actor", pid=os.getpid())
        self._config = config
        self._record = record
        self._target = target_of(record)
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_actor)))
        self._loop = EncodeLoop(self.load(), config.batch.max_frames)
        self._loop.start()

    def load(self) -> Encoder:
        """The replica. An actor with another codec overrides this and nothing else."""
        return load_encoder(self._config.model, self._record.num_quantizers, self._config.batch.max_frames)

    def ready(self) -> str:
        """The id of this actor's node, once the model is loaded."""
        return this_node()

    def figures(self) -> ActorFigures:
        """What this replica has done so far, and what waits for it."""
        frame_seconds = self._target.samples_per_frame / self._target.sample_rate
        loop = self._loop
        return ActorFigures(loop.encoded_frames * frame_seconds, loop.busy_seconds, loop.waiting_frames * frame_seconds)

    def tokenize(self, spec: ShardSpec, attempt: int) -> ShardManifest:
        """The shard from reading to its manifest. Any failure that is not a clip's own is raised to the driver."""
        about = {"shard": spec.shard_id, "attempt": attempt}
        logger.info("opened: %s", spec.place, extra=about)
        gathered = ShardResults(spec, attempt)
        config = self._config
        chunks = prepare_remotely(spec, config.input, config.prepare, self._target, config.run.stall_seconds)
        with self._loop.register_shard() as rank:
            feed = ClipSubmitter(self._loop, self._target, gathered.deliver, rank)
            try:
                for chunk in chunks:
                    gathered.add_chunk(chunk)
                    _log_rejects(chunk, spec, about)
                    for item in chunk.items:
                        feed.take(item)
            finally:
                feed.drop_long_clip()
        shard = gathered.wait()
        manifest = shard.publish(Layout(config.output.uri), self._record, config.output.row_group_rows)
        logger.info("committed: %d rows, %d rejects", manifest.rows, manifest.rejects, extra=about)
        return manifest


def _log_rejects(chunk: Chunk, spec: ShardSpec, about: dict[str, object]) -> None:
    for item in chunk.items:
        if isinstance(item, Reject):
            clip = {"clip": clip_id(spec.shard_id, item.origin), "stage": item.stage, "reason": item.reason}
            logger.info("rejected: %s: %s", item.origin.key, item.message, extra=about | clip)


class ClipSubmitter:
    """Hands the clips of a shard to the encode loop; at most one long one is open at a time."""

    def __init__(self, loop: EncodeLoop, target: Target, deliver: Deliver, rank: int) -> None:
        self._loop = loop
        self._target = target
        self._deliver = deliver
        self._rank = rank
        self._long: LongClip | None = None

    def take(self, item: Prepared) -> None:
        """Blocks while enough waits for the encoder."""
        if isinstance(item, Clip):
            self._loop.submit(item, self._target.frames(item.info.num_samples), self._deliver, self._rank)
        elif isinstance(item, ClipPart):
            if item.start == 0:
                self.drop_long_clip()  # its reader died, and the next one began it anew
                self._long = self._loop.open(self._deliver, self._rank)
            assert self._long is not None
            self._long.push(item.waveform, self._target.frames(item.waveform.shape[1]))
        elif isinstance(item, ClipEnd):
            assert self._long is not None
            self._long.end(item.info)
            self._long = None
        else:
            self.drop_long_clip()

    def drop_long_clip(self) -> None:
        if self._long is not None:
            self._long.drop()
            self._long = None


class ShardResults:
    """An OpenShard that one thread fills with chunks while the encode loop fills it with codes."""

    def __init__(self, spec: ShardSpec, attempt: int) -> None:
        self._shard = OpenShard(spec, attempt)
        self._changed = threading.Condition()
        self._error: BaseException | None = None

    def add_chunk(self, chunk: Chunk) -> None:
        with self._changed:
            self._shard.add_chunk(chunk)

    def deliver(self, result: CodedClip | BaseException, seconds: float) -> None:
        with self._changed:
            if isinstance(result, BaseException):
                self._error = result
            else:
                self._shard.add_codes(result, seconds)
            self._changed.notify_all()

    def wait(self) -> OpenShard:
        """Block until every clip of the chunks so far has its codes; raises what went wrong in the encoder."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._shard.missing == 0)
            if self._error is not None:
                raise self._error
            return self._shard
