"""The Ray cluster that a run is on: joining or starting it, and how many actors it takes."""

from __future__ import annotations

import logging
import math
import os
import signal
from typing import Any

import ray

from pipeline import storage
from pipeline.config import ClusterConfig, Config, ConfigError
from pipeline.output import Output

logger = logging.getLogger(__name__)


class ClusterError(OSError):
    """There is no Ray to run on; the message says what Ray said."""


def connect(cluster: ClusterConfig) -> None:
    """Join the configured cluster, or the one that a submitted job is in, or start Ray on this machine alone."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address}
    if not address:
        # An actor and a reader need a CPU each, and a number that was asked for is kept, however small the machine.
        actors = 1 if cluster.actors == "auto" else cluster.actors
        cpus = max(os.cpu_count() or 1, math.ceil(actors * cluster.cpus_per_actor) + 1)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray has no common type for the ways in which a cluster cannot be had
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise ClusterError(f"{where} cannot be used: {type(error).__name__}: {error}") from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put a handler of its own there, which aborts


def warn_of_local_output(output: Output) -> None:
    """Say so before the work is done where its results would be scattered."""
    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    if nodes > 1 and storage.is_local(output.layout.root):
        logger.warning(
            "%s is a local path, and the cluster has %d nodes: unless it is a shared disk, each node writes to its "
            "own, and the shards of the others are missing here",
            output.layout.root,
            nodes,
        )


def size_cluster(config: Config, resources: dict[str, float]) -> tuple[int, float]:
    """Number of actors, and the GPUs of each, on a cluster of these resources."""
    cluster = config.cluster
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    on_gpu = config.model.device == "cuda" or (config.model.device == "auto" and gpus > 0)
    gpus_per_actor = cluster.gpus_per_actor if on_gpu else 0.0
    if cluster.actors != "auto":
        count = cluster.actors
    elif on_gpu:
        count = int(gpus / cluster.gpus_per_actor)
    else:
        # Half of the CPUs are for reading and decoding.
        count = max(1, int(cpus / 2 / max(cluster.cpus_per_actor, 1)))
    if count == 0 or count * gpus_per_actor > gpus:
        needed = max(count, 1) * gpus_per_actor
        raise ConfigError(f"cluster.actors: {needed:g} GPUs are needed, and the cluster has {gpus:g}: see model.device")
    if count * cluster.cpus_per_actor + 1 > cpus:
        raise ConfigError(
            f"cluster.actors: {count} of {cluster.cpus_per_actor:g} CPUs and one CPU for reading are needed, and the "
            f"cluster has {cpus:g}: lower cluster.actors or cluster.cpus_per_actor"
        )
    return count, gpus_per_actor
