"""The Ray cluster of a run: joining or starting it, and its capacity for actors."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
from collections.abc import Container, Mapping
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
"""Resources (CPU, GPU) of each node that is alive, by its id."""

MIN_SLOTS, MAX_SLOTS = 2, 64  # each open shard has up to 40 MB of waveforms in the object store
ANSWER_SECONDS = 5.0
LOCAL_STARTS = 5
READER_CPUS = 1.0  # at least one reader must run beside the actors, or they wait forever


class ClusterError(OSError):
    """Ray cannot be used; the message has Ray's own."""


@dataclass(frozen=True, slots=True)
class ActorShape:
    """Resources that one actor reserves."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.gpus:g} GPUs and {self.cpus:g} CPUs" if self.gpus else f"{self.cpus:g} CPUs"

    def capacity(self, node: Mapping[str, float]) -> int:
        """Number of actors that fit on an empty node."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        # A third of a GPU fits three times; without the small term, rounding would make that two.
        fits = [int(node.get(name, 0.0) / need + 1e-6) for name, need in needs.items() if need]
        return min(fits, default=int(node.get("CPU", 0.0)))


def connect(cluster: ClusterConfig) -> None:
    """Join the configured cluster, or the one that a submitted job is in, or start Ray on this machine alone.

    Raises ClusterError, and KeyboardInterrupt if a signal ended the start of Ray.
    """
    address = joined_address(cluster)
    options: dict[str, Any] = {"address": address}
    if not address:
        # At least the configured actors and one reader must fit, however few CPUs the machine has.
        actors = 1 if cluster.actors == "auto" else cluster.actors
        cpus = max(os.cpu_count() or 1, math.ceil(actors * cluster.cpus_per_actor) + 1)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    else:
        _probe(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        try:
            _init(options, 1 if address else LOCAL_STARTS)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has installed a handler that aborts the process
    except SystemExit:  # raised by Ray's handler, possibly while it is being replaced
        signal.signal(signal.SIGTERM, on_sigterm)
        signals.check()
        raise
    except Exception as error:  # Ray has no common type for these errors
        signals.check()
        where = f"the Ray cluster at {address}" if address else "a local Ray"
        raise ClusterError(f"{where} cannot be used: {type(error).__name__}: {error}") from error


def _init(options: Mapping[str, Any], attempts: int) -> None:
    """Call `ray.init`, and call it again if Ray did not start in time.

    A Ray node exits if one of its own processes has not started within 15 s. On a machine with ten busy processes for
    each core, one start in fifty fails like that. Processes that a failed start leaves behind end with this process.
    """
    for further in reversed(range(attempts)):
        try:
            ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
            return
        except Exception as error:  # Ray has no type for a late start
            if not further or "timed out" not in str(error):
                raise
            signals.check()
            logger.warning("Ray did not start in time, perhaps because this machine is busy: trying again (%s)", error)


def _probe(address: str) -> None:
    """Raises ClusterError if nothing listens at host:port or ray://host:port. Ray itself would try for many minutes.

    An address without a port ("auto", "local", other schemes) is left to Ray.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.scheme in ("", "ray") and parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS).close()
    except ValueError as error:
        raise ClusterError(f"the Ray cluster at {address} cannot be used: not a host:port: {error}") from error
    except OSError as error:
        why = error.strerror or error
        raise ClusterError(f"the Ray cluster at {address} cannot be used: nothing answers there ({why})") from error


def joined_address(cluster: ClusterConfig) -> str | None:
    """Address of the cluster to join; None if Ray is started on this machine, where no node can join."""
    return cluster.address or os.environ.get("RAY_ADDRESS")


def live_nodes() -> Nodes:
    """The nodes that are alive now."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def warn_of_local_output(output: Output, nodes: Nodes) -> None:
    """Log a warning if a local output path would be another disk on each node."""
    if len(nodes) > 1 and storage.is_local(output.layout.root):
        logger.warning(
            "%s is a local path, and the cluster has %d nodes: unless it is a shared disk, each node writes to a disk "
            "of its own, and their shards are missing here",
            output.layout.root,
            len(nodes),
        )


def actor_shape(config: Config, nodes: Nodes) -> ActorShape:
    """Resources of an actor of this run. It has GPUs if the model runs on GPUs: by default, if the nodes have any."""
    device, reserved = config.model.device, config.cluster.gpus_per_actor
    if device == "cpu":
        gpus = reserved or 0.0
    elif device == "cuda" or total(nodes, "GPU") > 0:
        gpus = reserved or 1.0
    else:
        gpus = 0.0
    return ActorShape(config.cluster.cpus_per_actor, gpus)


def actor_capacity(config: Config, shape: ActorShape, nodes: Nodes, foreign: Container[str] = ()) -> int:
    """Number of actors that these nodes can hold beside one reader, at most the configured number.

    `foreign` are nodes that hold none.
    """
    capacity = _room(shape, nodes, foreign)
    cpus = total(nodes, "CPU")
    if shape.cpus:
        capacity = min(capacity, int((cpus - READER_CPUS) / shape.cpus))
    if cpus < READER_CPUS:
        return 0
    asked = config.cluster.actors
    if asked != "auto":
        return min(capacity, asked)
    # Without GPUs, half of the CPUs read and decode.
    return capacity if shape.gpus else min(capacity, max(1, int(cpus / 2 / max(shape.cpus, 1))))


def actors_to_start(config: Config, shape: ActorShape, nodes: Nodes, foreign: Container[str] = ()) -> int:
    """Number of actors to start on a cluster that may grow: `actor_capacity`, and some that wait so that it grows.

    An autoscaler adds nodes only for actors that wait: readers are tied to nodes, so Ray does not report them. With a
    configured number, all of them are started. With `auto`, twice the capacity: that fills a cluster of any size in a
    few steps. No actor waits that would fit these nodes, since it would take the last CPU from the readers.
    """
    capacity = actor_capacity(config, shape, nodes, foreign)
    if _room(shape, nodes, foreign) > capacity:
        return max(1, capacity)
    asked = config.cluster.actors
    return max(1, 2 * capacity) if asked == "auto" else asked


def _room(shape: ActorShape, nodes: Nodes, foreign: Container[str]) -> int:
    """Number of actors that fit empty nodes."""
    return sum(shape.capacity(resources) for node, resources in nodes.items() if node not in foreign)


def slots_per_actor(config: Config, shape: ActorShape, nodes: Nodes, actors: int) -> int:
    """Number of shards that each of `actors` actors should have open, so that every CPU that is left reads one."""
    if config.cluster.shards_per_actor != "auto":
        return config.cluster.shards_per_actor
    reading = total(nodes, "CPU") - actors * shape.cpus
    return max(MIN_SLOTS, min(MAX_SLOTS, math.ceil(reading / max(actors, 1)) + 1))


def max_slots(config: Config) -> int:
    """Upper limit of `slots_per_actor`, however many CPUs join."""
    return MAX_SLOTS if config.cluster.shards_per_actor == "auto" else config.cluster.shards_per_actor


def check_capacity(config: Config, shape: ActorShape, nodes: Nodes) -> None:
    """Raises ConfigError if the run would wait forever, on a machine that no node can join."""
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
    """Sum of one resource (CPU or GPU) over all nodes."""
    return sum(node.get(resource, 0.0) for node in nodes.values())


def describe_capacity(shape: ActorShape, nodes: Nodes) -> str:
    """What an actor needs and what the nodes have, for a message."""
    kinds = [f"{node.get('GPU', 0):g} GPUs and {node.get('CPU', 0):g} CPUs" for node in nodes.values()]
    counted = ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))
    return f"an actor needs {shape} on one node, and one CPU must stay for reading; the cluster's nodes: {counted}"
