"""How many actors a cluster has room for, and what is said where it has none."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import ray

from pipeline.cluster import (
    ClusterError,
    actor_shape,
    actors_to_start,
    check_room,
    connect,
    describe_room,
    places_in_actor,
    room_for_actors,
)
from pipeline.config import ClusterConfig, Config, parse_config
from pipeline.typed_yaml import ConfigError


def config_of(device: str = "auto", **cluster: Any) -> Config:
    inputs = {"splits": {"train": ["a.tar"]}}
    return parse_config({"input": inputs, "output": {"uri": "o"}, "model": {"device": device}, "cluster": cluster})


def nodes_of(*nodes: dict[str, float]) -> dict[str, dict[str, float]]:
    return {f"node {number}": node for number, node in enumerate(nodes)}


@pytest.mark.parametrize(
    ("config", "nodes", "room", "gpus"),
    [
        (config_of(), [{"CPU": 16.0, "GPU": 8.0}], 8, 1.0),
        (config_of(gpus_per_actor=0.5), [{"CPU": 16.0, "GPU": 4.0}], 8, 0.5),
        (config_of(gpus_per_actor=1 / 3), [{"CPU": 16.0, "GPU": 1.0}], 3, 1 / 3),
        (config_of(gpus_per_actor=0.7), [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 1.0}], 2, 0.7),
        (config_of(gpus_per_actor=2.0), [{"CPU": 16.0, "GPU": 3.0}, {"CPU": 16.0, "GPU": 3.0}], 2, 2.0),
        (config_of(), [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 32.0}], 4, 1.0),
        (config_of(), [{"CPU": 2.0, "GPU": 8.0}, {"CPU": 32.0}], 2, 1.0),
        (config_of(), [{"CPU": 4.0, "GPU": 8.0}], 3, 1.0),
        (config_of(actors=2), [{"CPU": 16.0, "GPU": 8.0}], 2, 1.0),
        (config_of(actors=9), [{"CPU": 16.0, "GPU": 8.0}], 8, 1.0),
        (config_of(), [{"CPU": 16.0}], 8, 0.0),
        (config_of(), [{"CPU": 2.0}, {"CPU": 2.0}], 2, 0.0),
        (config_of(), [{"CPU": 2.0}], 1, 0.0),
        (config_of(), [{"CPU": 1.0}], 0, 0.0),
        (config_of(), [], 0, 0.0),
        (config_of(actors=4), [{"CPU": 4.0}], 3, 0.0),
        (config_of(cpus_per_actor=4.0), [{"CPU": 16.0}], 2, 0.0),
        (config_of(cpus_per_actor=4.0), [{"CPU": 3.0}, {"CPU": 3.0}], 0, 0.0),
        (config_of(cpus_per_actor=0.0), [{"CPU": 4.0}], 2, 0.0),
        (config_of(device="cpu"), [{"CPU": 4.0, "GPU": 8.0}], 2, 0.0),
        (config_of(device="cuda"), [{"CPU": 4.0}], 0, 1.0),
    ],
)
def test_actors_follow_the_gpus_or_else_half_of_the_cpus_and_leave_one_to_read_with(
    config: Config, nodes: list[dict[str, float]], room: int, gpus: float
):
    shape = actor_shape(config, nodes_of(*nodes))
    assert shape.gpus == gpus
    assert room_for_actors(config, shape, nodes_of(*nodes)) == room


@pytest.mark.parametrize(
    ("config", "nodes", "started"),
    [
        (config_of(device="cuda"), [{"CPU": 0.0}], 1),
        (config_of(device="cuda", actors=8), [{"CPU": 0.0}], 1),
        (config_of(actors=8), [{"CPU": 16.0, "GPU": 1.0}], 8),
        (config_of(actors=8), [{"CPU": 4.0, "GPU": 1.0}], 3),
        (config_of(actors=8), [{"CPU": 8.0, "GPU": 8.0}], 7),
        (config_of(), [{"CPU": 16.0, "GPU": 2.0}], 2),
    ],
)
def test_on_a_cluster_that_grows_actors_wait_for_nodes_but_never_for_the_last_cpu_of_the_readers(
    config: Config, nodes: list[dict[str, float]], started: int
):
    there = nodes_of(*nodes)
    assert actors_to_start(config, actor_shape(config, there), there) == started


@pytest.mark.parametrize(
    ("config", "machine", "complaint"),
    [
        (config_of(device="cuda"), {"CPU": 4.0}, "1 GPUs are needed, and this machine has 0: see model.device"),
        (config_of(actors=3), {"CPU": 16.0, "GPU": 2.0}, "3 GPUs are needed, and this machine has 2"),
        (config_of(actors=4), {"CPU": 4.0}, "one CPU for reading"),
        (config_of(), {"CPU": 1.0}, "one CPU for reading"),
    ],
)
def test_a_machine_on_which_a_run_would_wait_for_ever_is_refused(
    config: Config, machine: dict[str, float], complaint: str
):
    nodes = nodes_of(machine)
    with pytest.raises(ConfigError, match=complaint):
        check_room(config, actor_shape(config, nodes), nodes)


@pytest.mark.parametrize(
    ("config", "nodes", "actors", "places"),
    [
        (config_of(), [{"CPU": 16.0, "GPU": 1.0}], 1, 16),
        (config_of(), [{"CPU": 16.0, "GPU": 8.0}], 8, 2),
        (config_of(), [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 32.0}], 1, 48),
        (config_of(), [{"CPU": 256.0, "GPU": 1.0}], 1, 64),
        (config_of(), [{"CPU": 2.0}], 1, 2),
        (config_of(), [{"CPU": 16.0}], 8, 2),
        (config_of(shards_per_actor=1), [{"CPU": 16.0, "GPU": 1.0}], 1, 1),
    ],
)
def test_actors_open_enough_shards_for_every_cpu_that_is_left_to_read(
    config: Config, nodes: list[dict[str, float]], actors: int, places: int
):
    there = nodes_of(*nodes)
    assert places_in_actor(config, actor_shape(config, there), there, actors) == places


def test_who_waits_for_room_is_told_what_is_needed_and_what_there_is():
    nodes = nodes_of({"CPU": 8.0}, {"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0})
    needs = actor_shape(config_of(gpus_per_actor=2.0), nodes)
    assert describe_room(needs, nodes) == (
        "an actor needs 2 GPUs and 1 CPUs on one node, and one CPU must stay for reading; the cluster's nodes: 2 of 0 "
        "GPUs and 8 CPUs, 1 of 1 GPUs and 4 CPUs"
    )


def test_a_cluster_that_cannot_be_had_is_one_error_that_names_it(monkeypatch: pytest.MonkeyPatch):
    def refuse(**options: Any) -> None:
        raise ConnectionError("timed out")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ClusterError, match=r"the Ray cluster at head:6379 cannot be used: ConnectionError: timed out"):
        connect(ClusterConfig(address="head:6379"))


def test_the_handler_of_sigterm_is_kept_through_rays_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "init", lambda **options: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    before = signal.getsignal(signal.SIGTERM)
    connect(ClusterConfig(address="head:6379"))
    assert signal.getsignal(signal.SIGTERM) is before
