"""The Ray tasks that read and prepare shards: every core decodes, and a decoder's crash or hang stays in its process.

Apart from the actors because a worker imports the module of what it runs, and a reader must not load torch: it would
take ten times the memory in each of many processes.

A reader that dies is started again where it was, and from there on names each clip before it touches it. So the clip
that it dies of is known. Readers die of other things too, of a lost node or of somebody's kill: a clip is guilty, and
becomes a Reject, where a second reader in a row dies of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import InputConfig, PrepareConfig
from pipeline.distributed.malloc import keep_freed_memory
from pipeline.items import Origin, Reject, ShardSpec
from pipeline.shard.chunks import CHUNK_CLIPS, FROM_THE_START, Chunk, Resumption, prepare_shard
from pipeline.steps.prepare import Target
from pipeline.steps.watchdog import Watchdog

logger = logging.getLogger(__name__)

CHUNKS_AHEAD = 4  # chunks that a reader may have finished before they are taken
ISOLATED_CLIPS = (CHUNKS_AHEAD + 2) * CHUNK_CLIPS  # as many as a reader can be ahead of what was received


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What a reader is told."""

    spec: ShardSpec
    input_config: InputConfig
    prepare_config: PrepareConfig
    target: Target
    stall_seconds: float


@ray.remote(num_cpus=1, max_retries=0)
def _prepare(reading: _Reading, resumption: Resumption) -> Iterator[Chunk]:
    keep_freed_memory()
    watchdog = Watchdog(reading.stall_seconds)
    yield from prepare_shard(
        reading.spec, reading.input_config, reading.prepare_config, reading.target, resumption, watchdog
    )


def prepare_remotely(
    spec: ShardSpec, input_config: InputConfig, prepare_config: PrepareConfig, target: Target, stall_seconds: float
) -> Iterator[Chunk]:
    """`prepare_shard` in another process, on this node where it has a CPU, a few chunks ahead of the caller.

    A decoder that needs more than `stall_seconds` for one block is ended with its process.

    Raises what the reader raises, and ReaderDied where one dies while it reads rather than decodes.
    """
    reading = _Reading(
        spec=spec,
        input_config=input_config,
        prepare_config=prepare_config,
        target=target,
        stall_seconds=stall_seconds,
    )
    finished = 0
    suspect: int | None = None
    resumption = FROM_THE_START
    while True:
        chunk, received = Chunk(), time.monotonic()
        try:
            for reference in _start(reading, resumption):
                chunk, received = ray.get(reference), time.monotonic()
                finished += chunk.finished
                yield chunk
            return
        except (WorkerCrashedError, OutOfMemoryError) as error:
            logger.warning("shard %s: a reader died after %d clips: %s", spec.shard_id, finished, error)
            clip = chunk.working_on
            if resumption.isolated_clips and clip is None:
                raise ReaderDied(f"{spec.place}: the process that reads it died after {finished} clips") from error
            if clip is not None and clip.index == suspect:
                yield Chunk(items=[_crash_reject(clip, time.monotonic() - received, stall_seconds)])
                finished, suspect, resumption = finished + 1, None, Resumption(first=finished + 1)
            else:
                suspect = None if clip is None else clip.index
                resumption = Resumption(first=finished, isolated_clips=ISOLATED_CLIPS)


class ReaderDied(RuntimeError):
    """A reader died and no clip is to blame; the message names what it read."""


def _start(reading: _Reading, resumption: Resumption) -> Any:
    # Soft alone would wait for ever for a CPU of this node, where actors hold them all, and leave other nodes idle.
    here = NodeAffinitySchedulingStrategy(this_node(), soft=True, _spill_on_unavailable=True)
    # With one chunk ahead a reader goes on only when what it yielded has been taken: what it names is known here
    # before it can die of it.
    ahead = 1 if resumption.isolated_clips else CHUNKS_AHEAD
    return _prepare.options(
        num_returns="streaming", _generator_backpressure_num_objects=ahead, scheduling_strategy=here
    ).remote(reading, resumption)


def _crash_reject(clip: Origin, seconds: float, stall_seconds: float) -> Reject:
    if seconds >= stall_seconds:
        reason = "decoder_stalled"
        message = f"the decoder needs more than {stall_seconds:g} s for a block: run.stall_seconds"
    else:
        reason = "decoder_crashed"
        message = "the process that decodes died of this clip, twice in a row"
    return Reject(origin=clip, stage="prepare", reason=reason, message=message)


def this_node() -> str:
    """Ray's id of the node that this process is on."""
    return ray.get_runtime_context().get_node_id()
