"""The Ray cluster that a run is on: joining or starting it, and how many actors it has room for."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import ray

from pipeline import signals, storage
from pipeline.config import ClusterConfig, Config
from pipeline.dataset.dataset import Output
from pipeline.yaml_config import ConfigError

logger = logging.getLogger(__name__)

Nodes: TypeAlias = "Mapping[str, Mapping[str, float]]"
"""What each node that is alive has (CPU, GPU), by its id."""

MIN_SLOTS, MAX_SLOTS = 2, 64  # each open shard has up to 40 MB of waveforms in the object store
ANSWER_SECONDS = 5.0
READER_CPUS = 1.0  # at least one reader must run beside the actors, or they wait for ever


class ClusterError(OSError):
    """There is no Ray to run on; the message says what Ray said."""


@dataclass(frozen=True, slots=True)
class ActorShape:
    """What one actor reserves."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.gpus:g} GPUs and {self.cpus:g} CPUs" if self.gpus else f"{self.cpus:g} CPUs"

    def capacity(self, node: Mapping[str, float]) -> int:
        """How many fit on a node that is empty."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        # A third of a GPU fits three times on one: the rounding of the division must not make that two.
        fits = [int(node.get(name, 0.0) / need + 1e-6) for name, need in needs.items() if need]
        return min(fits, default=int(node.get("CPU", 0.0)))


def connect(cluster: ClusterConfig) -> None:
    """Join the configured cluster, or the one that a submitted job is in, or start Ray on this machine alone.

    Raises ClusterError, and KeyboardInterrupt where a signal ended Ray's start.
    """
    address = joined_address(cluster)
    options: dict[str, Any] = {"address": address}
    if not address:
        # An actor and a reader need a CPU each, and a number that was asked for is kept, however small the machine.
        actors = 1 if cluster.actors == "auto" else cluster.actors
        cpus = max(os.cpu_count() or 1, math.ceil(actors * cluster.cpus_per_actor) + 1)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    else:
        _probe(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put a handler of its own there, which aborts
    except SystemExit:  # which that handler raises, at the latest while it is replaced
        signal.signal(signal.SIGTERM, on_sigterm)
        signals.check()
        raise
    except Exception as error:  # Ray has no common type for the ways in which a cluster cannot be had
        signals.check()
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise ClusterError(f"{where} cannot be used: {type(error).__name__}: {error}") from error


def _probe(address: str) -> None:
    """Raises ClusterError where nothing listens at host:port, or ray://host:port: Ray would try for many minutes.

    What names no port ("auto", "local", services with a scheme of their own) is left to Ray.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.scheme in ("", "ray") and parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS).close()
    except ValueError as error:
        raise ClusterError(f"the Ray cluster at {address} cannot be used: this is no host:port: {error}") from error
    except OSError as error:
        why = error.strerror or error
        raise ClusterError(f"the Ray cluster at {address} cannot be used: nothing answers there ({why})") from error


def joined_address(cluster: ClusterConfig) -> str | None:
    """The cluster to join; None where Ray is started here, on a machine that does not grow."""
    return cluster.address or os.environ.get("RAY_ADDRESS")


def live_nodes() -> Nodes:
    """The nodes that the cluster has at this moment."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def warn_of_local_output(output: Output, nodes: Nodes) -> None:
    """Say so before the work is done where its results would be scattered."""
    if len(nodes) > 1 and storage.is_local(output.layout.root):
        logger.warning(
            "%s is a local path, and the cluster has %d nodes: unless it is a shared disk, each node writes to its "
            "own, and the shards of the others are missing here",
            output.layout.root,
            len(nodes),
        )


def actor_shape(config: Config, nodes: Nodes) -> ActorShape:
    """What an actor of this run reserves. GPUs where the model is to run on them: by default, if there are any."""
    device = config.model.device
    on_gpu = device == "cuda" or (device == "auto" and total(nodes, "GPU") > 0)
    return ActorShape(config.cluster.cpus_per_actor, config.cluster.gpus_per_actor if on_gpu else 0.0)


def actor_capacity(config: Config, shape: ActorShape, nodes: Nodes) -> int:
    """How many actors the run can have on these nodes, leaving a CPU to read with: at most as many as are asked for."""
    capacity = sum(shape.capacity(node) for node in nodes.values())
    cpus = total(nodes, "CPU")
    if shape.cpus:
        capacity = min(capacity, int((cpus - READER_CPUS) / shape.cpus))
    if cpus < READER_CPUS:
        return 0
    asked = config.cluster.actors
    if asked != "auto":
        return min(capacity, asked)
    # Without GPUs half of the CPUs are for reading and decoding.
    return capacity if shape.gpus else min(capacity, max(1, int(cpus / 2 / max(shape.cpus, 1))))


def actors_to_start(config: Config, shape: ActorShape, nodes: Nodes) -> int:
    """How many actors to have on a cluster that may grow: `actor_capacity`, and those whose waiting makes it grow.

    An autoscaler adds nodes for actors that wait, and for nothing else: Ray does not tell it of readers, as they are
    tied to nodes. So all that were asked for wait; of `auto` as many again as there is room for, which fills a cluster
    of any size in a few steps. But none waits that would find a place on these nodes: it would take the last CPU from
    the readers.
    """
    capacity = actor_capacity(config, shape, nodes)
    if sum(shape.capacity(node) for node in nodes.values()) > capacity:
        return max(1, capacity)
    asked = config.cluster.actors
    return max(1, 2 * capacity) if asked == "auto" else asked


def slots_per_actor(config: Config, shape: ActorShape, nodes: Nodes, actors: int) -> int:
    """How many shards each of so many actors is to have open now, so that every CPU that is left reads."""
    if config.cluster.shards_per_actor != "auto":
        return config.cluster.shards_per_actor
    reading = total(nodes, "CPU") - actors * shape.cpus
    return max(MIN_SLOTS, min(MAX_SLOTS, math.ceil(reading / max(actors, 1)) + 1))


def max_slots(config: Config) -> int:
    """How many shards an actor may ever have open, however many CPUs join."""
    return MAX_SLOTS if config.cluster.shards_per_actor == "auto" else config.cluster.shards_per_actor


def check_capacity(config: Config, shape: ActorShape, nodes: Nodes) -> None:
    """Raises ConfigError for a run that would wait for ever, on nodes that will not become more."""
    asked = 1 if config.cluster.actors == "auto" else config.cluster.actors
    gpus, cpus = total(nodes, "GPU"), total(nodes, "CPU")
    if asked * shape.gpus > gpus:
        raise ConfigError(
            f"cluster.actors: {asked * shape.gpus:g} GPUs are needed, and this machine has {gpus:g}: see model.device"
        )
    if actor_capacity(config, shape, nodes) < asked:
        raise ConfigError(
            f"cluster.actors: {asked} of {shape} and one CPU for reading are needed, and this machine has {cpus:g} "
            "CPUs: lower cluster.actors or cluster.cpus_per_actor"
        )


def total(nodes: Nodes, resource: str) -> float:
    return sum(node.get(resource, 0.0) for node in nodes.values())


def describe_capacity(shape: ActorShape, nodes: Nodes) -> str:
    """What an actor needs and what there is, for people who wonder why there is none."""
    kinds = [f"{node.get('GPU', 0):g} GPUs and {node.get('CPU', 0):g} CPUs" for node in nodes.values()]
    counted = ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))
    return f"an actor needs {shape} on one node, and one CPU must stay for reading; the cluster's nodes: {counted}"
