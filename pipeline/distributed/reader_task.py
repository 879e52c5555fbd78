"""The Ray tasks that read and prepare shards. Every core decodes, and a decoder that crashes ends only its own task.

This module is apart from the actor's because a Ray worker imports the module of its task, and a reader must not import
torch: that would take ten times the memory in each of many processes.

When a reader dies, another one continues after the last clip that was received. From there it isolates clips: it sends
a chunk that names a clip before it touches the clip. So it is known which clip it was working on if it dies too. A
reader may also die for other reasons, such as a lost node. A clip becomes a reject only if two readers in a row die
while working on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import PrepareConfig
from pipeline.distributed.malloc import keep_freed_memory
from pipeline.input_config import InputConfig
from pipeline.items import Origin, Reject, ShardSpec
from pipeline.shard.chunks import CHUNK_CLIPS, FROM_THE_START, Chunk, Place, Resumption, prepare_shard
from pipeline.steps.clip_signals import NO_SIGNALS, Signals
from pipeline.steps.prepare import Target
from pipeline.steps.watchdog import Watchdog

logger = logging.getLogger(__name__)

CHUNKS_AHEAD = 4  # chunks that a reader may finish before the first of them is taken
ISOLATED_CLIPS = (CHUNKS_AHEAD + 2) * CHUNK_CLIPS  # a reader is never further ahead of what was received


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The arguments of a reader."""

    spec: ShardSpec
    input_config: InputConfig
    prepare_config: PrepareConfig
    targets: tuple[Target, ...]
    stall_seconds: float
    signals: Signals


@ray.remote(num_cpus=1, max_retries=0)
def _prepare(reading: _Reading, resumption: Resumption) -> Iterator[Chunk]:
    keep_freed_memory()
    watchdog = Watchdog(reading.stall_seconds)
    yield from prepare_shard(
        reading.spec,
        reading.input_config,
        reading.prepare_config,
        reading.targets,
        resumption,
        watchdog,
        reading.signals,
    )


def prepare_remotely(
    spec: ShardSpec,
    input_config: InputConfig,
    prepare_config: PrepareConfig,
    targets: Sequence[Target],
    stall_seconds: float,
    signals: Signals = NO_SIGNALS,
) -> Iterator[Chunk]:
    """`prepare_shard` in another process, a few chunks ahead of the caller, on this node if it has a free CPU.

    A decoder that needs more than `stall_seconds` for one block is ended with its process.

    Raises what the reader raises, and ReaderDied if a reader that isolates clips dies before it has named one.
    """
    reading = _Reading(
        spec=spec,
        input_config=input_config,
        prepare_config=prepare_config,
        targets=tuple(targets),
        stall_seconds=stall_seconds,
        signals=signals,
    )
    finished = 0
    suspect: int | None = None
    resumption = FROM_THE_START
    place = resumption.place
    while True:
        chunk, received = Chunk(), time.monotonic()
        try:
            for reference in _start(reading, resumption):
                chunk, received = ray.get(reference), time.monotonic()
                finished += chunk.finished
                place = chunk.place or place
                yield chunk
            return
        except (WorkerCrashedError, OutOfMemoryError) as error:
            logger.warning("shard %s: a reader died after %d clips: %s", spec.shard_id, finished, error)
            clip = chunk.working_on
            if resumption.isolated_clips and clip is None:
                raise ReaderDied(f"{spec.place}: the process that reads it died after {finished} clips") from error
            if clip is not None and clip.index == suspect:
                reject = _crash_reject(clip, time.monotonic() - received, stall_seconds)
                yield Chunk(tuple([reject] for _ in targets))
                finished, suspect = finished + 1, None
                if chunk.splits:  # the reject stands for the whole recording
                    place = Place(place.recording + 1, finished)
                resumption = Resumption(first=finished, place=place)
            else:
                suspect = None if clip is None else clip.index
                resumption = Resumption(first=finished, isolated_clips=ISOLATED_CLIPS, place=place)


class ReaderDied(RuntimeError):
    """A reader died, and not while it was working on a clip. The message names what it read."""


def _start(reading: _Reading, resumption: Resumption) -> Any:
    # Without spilling, the task would wait forever on a node whose CPUs all belong to actors.
    here = NodeAffinitySchedulingStrategy(this_node(), soft=True, _spill_on_unavailable=True)
    # With one chunk ahead, a reader continues only after its last chunk was taken: the clip that it names is known
    # here before it works on it.
    ahead = 1 if resumption.isolated_clips else CHUNKS_AHEAD
    return _prepare.options(
        num_returns="streaming", _generator_backpressure_num_objects=ahead, scheduling_strategy=here
    ).remote(reading, resumption)


def _crash_reject(clip: Origin, seconds: float, stall_seconds: float) -> Reject:
    """The reject of a clip that two readers died on, the second one after `seconds`."""
    if seconds >= stall_seconds:
        reason = "decoder_stalled"
        message = f"the decoder needs more than {stall_seconds:g} s for one block: see run.stall_seconds"
    else:
        reason = "decoder_crashed"
        message = "the decoding process died twice in a row while working on this clip"
    return Reject(origin=clip, stage="prepare", reason=reason, message=message)


def this_node() -> str:
    """Ray's id of the node of this process."""
    return ray.get_runtime_context().get_node_id()
