"""How many actors a cluster takes, and what is said where it takes none."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import ray

from pipeline.cluster import ClusterError, connect, size_cluster
from pipeline.config import ClusterConfig, Config, ConfigError, parse_config


def config_of(device: str = "auto", **cluster: Any) -> Config:
    inputs = {"splits": {"train": ["a.tar"]}}
    return parse_config({"input": inputs, "output": {"uri": "o"}, "model": {"device": device}, "cluster": cluster})


@pytest.mark.parametrize(
    ("config", "resources", "expected"),
    [
        (config_of(), {"CPU": 16.0, "GPU": 8.0}, (8, 1.0)),
        (config_of(gpus_per_actor=0.5), {"CPU": 16.0, "GPU": 4.0}, (8, 0.5)),
        (config_of(actors=2), {"CPU": 16.0, "GPU": 8.0}, (2, 1.0)),
        (config_of(), {"CPU": 16.0}, (8, 0.0)),
        (config_of(), {"CPU": 2.0}, (1, 0.0)),
        (config_of(cpus_per_actor=4.0), {"CPU": 16.0}, (2, 0.0)),
        (config_of(device="cpu"), {"CPU": 4.0, "GPU": 8.0}, (2, 0.0)),
    ],
)
def test_actors_follow_the_gpus_or_else_half_of_the_cpus(
    config: Config, resources: dict[str, float], expected: tuple[int, float]
):
    assert size_cluster(config, resources) == expected


@pytest.mark.parametrize(
    ("config", "resources", "complaint"),
    [
        (config_of(device="cuda"), {"CPU": 4.0}, "1 GPUs are needed, and the cluster has 0: see model.device"),
        (config_of(actors=3), {"CPU": 16.0, "GPU": 2.0}, "3 GPUs are needed, and the cluster has 2"),
        (config_of(actors=4), {"CPU": 4.0}, "one CPU for reading"),
        (config_of(), {"CPU": 1.0}, "one CPU for reading"),
    ],
)
def test_a_cluster_on_which_a_run_would_wait_for_ever_is_refused(
    config: Config, resources: dict[str, float], complaint: str
):
    with pytest.raises(ConfigError, match=complaint):
        size_cluster(config, resources)


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
