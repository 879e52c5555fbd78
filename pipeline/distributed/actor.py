"""The Ray actor: one replica of each codec, and the shards that are open in it."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import logs
from pipeline.codecs.machine import Machine
from pipeline.dataset.manifest import ShardManifest
from pipeline.distributed.reader_task import prepare_remotely, this_node
from pipeline.distributed.throughput import ActorFigures
from pipeline.items import Reject, ShardSpec
from pipeline.shard.chunks import Chunk
from pipeline.shard.tokenize import CodecJob, CodecWorker, encode_shard
from pipeline.steps.prepare import Target
from pipeline.steps.records import clip_id

if TYPE_CHECKING:
    from pipeline.steps.encode import Encoder

logger = logging.getLogger(__name__)

GPU_LOST = 70  # exit status


@dataclass(frozen=True, slots=True)
class Readiness:
    """What an actor says when it has loaded its models."""

    node: str
    """Ray's id of its node."""
    machines: Sequence[Machine]
    """The kind of machine that each codec computes on."""


class TokenizerActor:
    """One replica of each codec. Each call of `tokenize` has a thread of its own; all share the encode loops."""

    def __init__(self, jobs: Sequence[CodecJob], run_id: str) -> None:
        """Load the models and start the encode loops. Log lines go to the standard error of the Ray worker."""
        import torch  # in methods only: the driver, which names this class, does without

        self._config = config = jobs[0].config  # jobs differ in their models and outputs only
        self._signals = jobs[0].record.signals
        logs.configure(config.run.log_format, everything=True, run=run_id, process="actor", pid=os.getpid())
        torch.set_num_threads(max(1, int(config.cluster.cpus_per_actor)))
        turn = threading.Lock()
        self._workers = [CodecWorker(job, self.load(job), turn) for job in jobs]
        for worker in self._workers:
            worker.loop.start()
        gc.freeze()  # the models and their libraries stay, so garbage collections need not visit them

    def load(self, job: CodecJob) -> Encoder:
        """Load the encoder. An actor with another codec overrides only this."""
        from pipeline.steps.encode import load_encoder

        config, record = job.config, job.record
        return load_encoder(config.model, record.num_quantizers, config.batch.max_frames, record.latents, record.dtype)

    def ready(self) -> Readiness:
        """Where this actor is, and what it computes on. Ray answers once the models are loaded."""
        return Readiness(this_node(), [worker.machine for worker in self._workers])

    def figures(self) -> ActorFigures:
        """What this actor has encoded so far, and what waits for its encoders. Of several codecs, audio counts as
        encoded by the part of them that has encoded it.
        """
        figures = ActorFigures()
        for worker in self._workers:
            seconds = worker.target.samples_per_frame / worker.target.sample_rate / len(self._workers)
            loop = worker.loop
            figures += ActorFigures(loop.encoded_frames * seconds, loop.busy_seconds, loop.waiting_frames * seconds)
        return figures

    def tokenize(
        self,
        spec: ShardSpec,
        attempt: int,
        codecs: Sequence[int] = (0,),
        replaces: Sequence[ShardManifest | None] = (None,),
    ) -> list[ShardManifest]:
        """Read, prepare, encode and publish a shard with the codecs at these positions; returns their manifests.

        A clip that cannot be used becomes a reject. Any other failure is raised to the driver. `replaces` has for each
        codec the manifest of the committed shard, if the shard is done again because of its rejects.
        """
        config = self._config
        about = {"shard": spec.shard_id, "attempt": attempt}
        logger.info("opened: %s", spec.place, extra=about)

        def prepare(targets: Sequence[Target]) -> Iterator[Chunk]:
            stall_seconds = config.run.stall_seconds
            chunks = prepare_remotely(spec, config.input, config.prepare, targets, stall_seconds, self._signals)
            return _log_rejects(chunks, spec, about)

        workers = [self._workers[position] for position in codecs]
        try:
            manifests = encode_shard(spec, prepare, workers, replaces, attempt)
        except Exception as error:
            from pipeline.steps.encode import gpu_is_lost

            if gpu_is_lost(error):
                logger.error("this actor ends, since its GPU computes nothing any more: %s", error, extra=about)
                end_process()
            raise
        for manifest in manifests:
            logger.info("committed: %d rows, %d rejects", manifest.rows, manifest.rejects, extra=about)
        return manifests


def end_process() -> None:
    """End this process at once: what would be tidied up waits for a GPU that does not answer."""
    logging.shutdown()
    os._exit(GPU_LOST)


def _log_rejects(chunks: Iterable[Chunk], spec: ShardSpec, about: dict[str, object]) -> Iterator[Chunk]:
    """Log the rejects of each chunk, equal ones of several targets once, and pass the chunk on."""
    for chunk in chunks:
        rejects = (item for items in chunk.items for item in items if isinstance(item, Reject))
        for reject in dict.fromkeys(rejects):
            clip = {"clip": clip_id(spec.shard_id, reject.origin), "stage": reject.stage, "reason": reject.reason}
            logger.info("rejected: %s: %s", reject.origin.key, reject.message, extra=about | clip)
        yield chunk
