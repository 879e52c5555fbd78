"""How many actors a cluster has room for, and what is said where it has none."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from pipeline import signals
from pipeline.config import ClusterConfig, Config, parse_config
from pipeline.distributed import cluster
from pipeline.distributed.cluster import (
    ClusterError,
    actor_capacity,
    actor_shape,
    actors_to_start,
    check_capacity,
    connect,
    describe_capacity,
    slots_per_actor,
)
from pipeline.yaml_config import ConfigError
from tests.support import DEADLINE_SECONDS


def config_of(device: str = "auto", **cluster: Any) -> Config:
    inputs = {"splits": {"train": ["a.tar"]}}
    return parse_config({"input": inputs, "output": {"uri": "o"}, "model": {"device": device}, "cluster": cluster})


def nodes_of(*nodes: dict[str, float]) -> dict[str, dict[str, float]]:
    return {f"node {number}": node for number, node in enumerate(nodes)}


@pytest.mark.parametrize(
    ("config", "nodes", "capacity", "gpus"),
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
    config: Config, nodes: list[dict[str, float]], capacity: int, gpus: float
):
    shape = actor_shape(config, nodes_of(*nodes))
    assert shape.gpus == gpus
    assert actor_capacity(config, shape, nodes_of(*nodes)) == capacity


@pytest.mark.parametrize(
    ("config", "nodes", "started"),
    [
        (config_of(device="cuda"), [{"CPU": 0.0}], 1),
        (config_of(device="cuda", actors=8), [{"CPU": 0.0}], 8),
        (config_of(actors=8), [{"CPU": 16.0, "GPU": 1.0}], 8),
        (config_of(actors=8), [{"CPU": 2.0, "GPU": 1.0}], 8),
        (config_of(actors=8), [{"CPU": 8.0, "GPU": 8.0}], 7),
        (config_of(actors=8), [{"CPU": 1.0, "GPU": 1.0}], 1),
        (config_of(), [{"CPU": 16.0, "GPU": 2.0}], 4),
        (config_of(), [{"CPU": 8.0, "GPU": 8.0}], 7),
        (config_of(), [{"CPU": 0.0}], 1),
        (config_of(), [{"CPU": 4.0}], 2),
        (config_of(actors=8), [{"CPU": 4.0}], 3),
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
        check_capacity(config, actor_shape(config, nodes), nodes)


@pytest.mark.parametrize(
    ("config", "nodes", "actors", "slots"),
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
    config: Config, nodes: list[dict[str, float]], actors: int, slots: int
):
    there = nodes_of(*nodes)
    assert slots_per_actor(config, actor_shape(config, there), there, actors) == slots


def test_who_waits_for_room_is_told_what_is_needed_and_what_there_is():
    nodes = nodes_of({"CPU": 8.0}, {"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0})
    needs = actor_shape(config_of(gpus_per_actor=2.0), nodes)
    assert describe_capacity(needs, nodes) == (
        "an actor needs 2 GPUs and 1 CPUs on one node, and one CPU must stay for reading; the cluster's nodes: 2 of 0 "
        "GPUs and 8 CPUs, 1 of 1 GPUs and 4 CPUs"
    )


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Something that listens at a port of this machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        yield server


def address_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent(listener: socket.socket) -> Iterator[str]:
    """An address that does not even refuse: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield address_of(listener)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray would try for many minutes"))


def test_a_cluster_that_cannot_be_had_is_one_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
):
    def refuse(**options: Any) -> None:
        raise ConnectionError("timed out")

    monkeypatch.setattr(ray, "init", refuse)
    address = address_of(listener)
    with pytest.raises(ClusterError, match=rf"the Ray cluster at {address} cannot be used: ConnectionError: timed out"):
        connect(ClusterConfig(address=address))


def test_a_local_ray_that_is_late_is_started_again_and_one_that_cannot_start_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    outcomes = [Exception("The current node timed out during startup."), None]
    monkeypatch.setattr(ray, "init", lambda **options: raise_or_return(outcomes.pop(0)))
    connect(ClusterConfig())
    assert outcomes == []
    assert "Ray did not start in time" in caplog.text
    outcomes = [Exception("No space left on device"), None]
    with pytest.raises(ClusterError, match="a local Ray cannot be used: Exception: No space left on device"):
        connect(ClusterConfig())
    assert outcomes == [None]
    outcomes = [Exception("The current node timed out during startup.")] * cluster.LOCAL_STARTS
    with pytest.raises(ClusterError, match="a local Ray cannot be used: Exception: The current node timed out"):
        connect(ClusterConfig())
    assert outcomes == []


def raise_or_return(outcome: Exception | None) -> None:
    if outcome:
        raise outcome


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.usefixtures("no_ray")
def test_an_address_that_refuses_is_not_tried_again_and_again(scheme: str, listener: socket.socket):
    address = scheme + address_of(listener)
    listener.close()
    with pytest.raises(ClusterError, match=rf"the Ray cluster at {address} cannot be used: nothing answers there"):
        connect(ClusterConfig(address=address))


@pytest.mark.usefixtures("no_ray")
def test_an_address_of_the_environment_is_tried_as_well(monkeypatch: pytest.MonkeyPatch, listener: socket.socket):
    monkeypatch.setenv("RAY_ADDRESS", address_of(listener))
    listener.close()
    with pytest.raises(ClusterError, match="nothing answers there"):
        connect(ClusterConfig())


@pytest.mark.usefixtures("no_ray")
def test_an_address_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch, silent: str):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.2)
    with pytest.raises(ClusterError, match=r"nothing answers there \(timed out\)"):
        connect(ClusterConfig(address=silent))


@pytest.mark.usefixtures("no_ray")
def test_an_interrupt_ends_the_wait_for_an_answer(monkeypatch: pytest.MonkeyPatch, silent: str):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", DEADLINE_SECONDS)
    wait = socket.create_connection
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))

    def wait_and_be_interrupted(*arguments: Any, **options: Any) -> socket.socket:
        timer.start()
        return wait(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", wait_and_be_interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        connect(ClusterConfig(address=silent))
    timer.join()
    assert time.monotonic() - started < DEADLINE_SECONDS / 2


@pytest.mark.usefixtures("no_ray")
def test_an_address_whose_port_is_no_number_is_refused():
    with pytest.raises(ClusterError, match="not a host:port"):
        connect(ClusterConfig(address="head:port"))


@pytest.mark.parametrize("address", ["auto", "local", "service://head:1"])
def test_what_is_no_host_and_port_is_left_to_ray(monkeypatch: pytest.MonkeyPatch, address: str):
    given: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options["address"]))
    connect(ClusterConfig(address=address))
    assert given == [address]


@pytest.mark.parametrize("outcome", [None, ConnectionError("timed out")])
def test_the_handler_of_sigterm_is_kept_through_rays_start(monkeypatch: pytest.MonkeyPatch, outcome: Exception | None):
    def start(**options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if outcome:
            raise outcome

    monkeypatch.setattr(ray, "init", start)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ClusterError) if outcome else contextlib.nullcontext():
        connect(ClusterConfig(address="local"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_an_interrupt_though_rays_handler_makes_an_exit_of_it(monkeypatch: pytest.MonkeyPatch):
    def start(**options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", start)
    with signals.listening(), pytest.raises(KeyboardInterrupt):
        connect(ClusterConfig(address="local"))


def test_both_signals_at_once_are_an_interrupt_though_the_second_waits_for_the_handler_to_be_put_back(
    monkeypatch: pytest.MonkeyPatch,
):
    """As they come where Ray's core has held the interpreter for a while."""
    both = [signal.SIGINT, signal.SIGTERM]

    def start(**options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            signal.pthread_kill(threading.get_ident(), number)  # another thread might take what the process is sent
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)

    monkeypatch.setattr(ray, "init", start)
    before = signal.getsignal(signal.SIGTERM)
    with signals.listening():
        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            connect(ClusterConfig(address="local"))
        assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGTERM) is before
