"""The Ray task that reads and prepares a shard: every core decodes, and a decoder's crash stays in its process.

Apart from the actors because a worker imports the module of what it runs, and a reader must not load torch: it would
take ten times the memory in each of many processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.chunk import Chunk, prepare_shard
from pipeline.config import InputConfig, PrepareConfig
from pipeline.items import ShardSpec
from pipeline.prepare import Target

CHUNKS_AHEAD = 4  # chunks that a reader may have finished before they are taken


@ray.remote(num_cpus=1, max_retries=0)
def _prepare(
    spec: ShardSpec, input_config: InputConfig, prepare_config: PrepareConfig, target: Target
) -> Iterator[Chunk]:
    yield from prepare_shard(spec, input_config, prepare_config, target)


def prepare_remotely(
    spec: ShardSpec, input_config: InputConfig, prepare_config: PrepareConfig, target: Target
) -> Iterator[Chunk]:
    """`prepare_shard` in another process, on this node where it has a CPU, a few chunks ahead of the caller."""
    here = NodeAffinitySchedulingStrategy(this_node(), soft=True)
    stream: Any = _prepare.options(
        num_returns="streaming", _generator_backpressure_num_objects=CHUNKS_AHEAD, scheduling_strategy=here
    ).remote(spec, input_config, prepare_config, target)
    for reference in stream:
        yield ray.get(reference)


def this_node() -> str:
    """Ray's id of the node that this process is on."""
    return ray.get_runtime_context().get_node_id()
