"""The Ray actor: one replica of the codec, and the shards that are open in it."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from pipeline import logs
from pipeline.codecs.machine import Machine
from pipeline.config import Config
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.provenance import RunRecord
from pipeline.distributed.reader_task import prepare_remotely, this_node
from pipeline.distributed.throughput import ActorFigures
from pipeline.items import Reject, ShardSpec
from pipeline.shard.chunks import Chunk
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.shard.tokenize import OpenShard, encode_shard, target_of
from pipeline.steps.encode import Encoder, gpu_is_lost, load_encoder
from pipeline.steps.records import clip_id

logger = logging.getLogger(__name__)

GPU_LOST = 70  # exit status


@dataclass(frozen=True, slots=True)
class Readiness:
    """What an actor says when it has loaded the model."""

    node: str
    """Ray's id of its node."""
    machine: Machine
    """The kind of machine that it computes on."""


class TokenizerActor:
    """One replica of the codec. Each call of `tokenize` has a thread of its own; all share one encode loop."""

    def __init__(self, config: Config, record: RunRecord, run_id: str) -> None:
        """Load the model and start the encode loop. Log lines go to the standard error of the Ray worker."""
        logs.configure(config.run.log_format, everything=True, run=run_id, process="actor", pid=os.getpid())
        self._config = config
        self._record = record
        self._target = target_of(record)
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_actor)))
        encoder = self.load()
        self._machine = encoder.machine
        self._loop = EncodeLoop(encoder, config.batch.max_frames)
        self._loop.start()
        gc.freeze()  # the model and its libraries stay, so garbage collections need not visit them

    def load(self) -> Encoder:
        """Load the encoder. An actor with another codec overrides only this."""
        record = self._record
        return load_encoder(
            self._config.model, record.num_quantizers, self._config.batch.max_frames, record.latents, record.dtype
        )

    def ready(self) -> Readiness:
        """Where this actor is, and what it computes on. Ray answers once the model is loaded."""
        return Readiness(this_node(), self._machine)

    def figures(self) -> ActorFigures:
        """What this actor has encoded so far, and what waits for its encoder."""
        frame_seconds = self._target.samples_per_frame / self._target.sample_rate
        loop = self._loop
        return ActorFigures(loop.encoded_frames * frame_seconds, loop.busy_seconds, loop.waiting_frames * frame_seconds)

    def tokenize(self, spec: ShardSpec, attempt: int, replaces: ShardManifest | None = None) -> ShardManifest:
        """Read, prepare, encode and publish a shard; returns its manifest.

        A clip that cannot be used becomes a reject. Any other failure is raised to the driver. `replaces` is the
        manifest of the committed shard, if the shard is done again because of its rejects.
        """
        config = self._config
        about = {"shard": spec.shard_id, "attempt": attempt}
        logger.info("opened: %s", spec.place, extra=about)
        shard = OpenShard(spec, attempt, max_missing_fraction=config.run.max_missing_fraction, replaces=replaces)
        chunks = prepare_remotely(spec, config.input, config.prepare, self._target, config.run.stall_seconds)
        try:
            encode_shard(shard, _log_rejects(chunks, spec, about), self._loop, self._target)
        except Exception as error:
            if gpu_is_lost(error):
                logger.error("this actor ends, since its GPU computes nothing any more: %s", error, extra=about)
                end_process()
            raise
        layout = Layout(config.output.uri)
        manifest = shard.publish(layout, self._record, config.output.row_group_rows, self._machine)
        logger.info("committed: %d rows, %d rejects", manifest.rows, manifest.rejects, extra=about)
        return manifest


def end_process() -> None:
    """End this process at once: what would be tidied up waits for a GPU that does not answer."""
    logging.shutdown()
    os._exit(GPU_LOST)


def _log_rejects(chunks: Iterable[Chunk], spec: ShardSpec, about: dict[str, object]) -> Iterator[Chunk]:
    """Log the rejects of each chunk and pass the chunk on."""
    for chunk in chunks:
        for item in chunk.items:
            if isinstance(item, Reject):
                clip = {"clip": clip_id(spec.shard_id, item.origin), "stage": item.stage, "reason": item.reason}
                logger.info("rejected: %s: %s", item.origin.key, item.message, extra=about | clip)
        yield chunk
