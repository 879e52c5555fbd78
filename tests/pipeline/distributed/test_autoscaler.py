"""Ray's autoscaler over a cluster that begins with a head alone: real raylets on this machine, with pretend GPUs."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

from tests.ray_head import RayHead, ray_head
from tests.support import (
    CONFIG,
    DEADLINE_SECONDS,
    PRETEND_GPUS,
    data_files,
    demo_config,
    free_port,
    kill,
    start_command,
    tokenize_in_process,
    wait_for,
)

SHARDS = "input.clips_per_shard=4"
WORKERS = 2
# A node that is killed is noticed by its silence: after a quarter of a minute by default.
NOTICE_SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
# What a launcher would do on a fresh machine: nothing.
PHASES = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
SYNCED = ("cluster_synced_files", "rsync_exclude", "rsync_filter")


class GrowingCluster:
    """A head without CPUs, and an autoscaler that may add nodes of three CPUs and a GPU."""

    def __init__(self, head: RayHead) -> None:
        self.head = head

    def workers(self) -> list[psutil.Process]:
        """The raylets that the autoscaler has started."""
        return self._processes("raylet")

    def actors(self) -> list[psutil.Process]:
        return self._processes("ray::TokenizerActor")

    def remove_node(self, actor: psutil.Process) -> None:
        """What a preemption is: the actor's node is gone, with all that runs on it."""
        raylet = next(parent for parent in actor.parents() if parent.name() == "raylet")
        kill([raylet, *raylet.children(recursive=True)])

    def _processes(self, name: str) -> list[psutil.Process]:
        """Those of this name that the head has not started itself."""
        found = []
        for process in self.head.children():
            with suppress(psutil.NoSuchProcess):
                program = "".join(process.cmdline()[:1])  # of a zombie: nothing
                if Path(program).name.startswith(name) and process.ppid() != self.head.process.pid:
                    found.append(process)
        return found


def autoscaler_config(address: str) -> dict[str, Any]:
    """What a cluster launcher would read; the provider is the one with which Ray tests its autoscaler."""
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": address,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    resources = {"CPU": 3, "GPU": 1, "object_store_memory": 100 * 2**20}
    types = {
        FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": WORKERS},
    }
    return {
        "cluster_name": "growing",
        "max_workers": WORKERS,
        "idle_timeout_minutes": 3 / 60,
        "provider": provider,
        "auth": {},
        "file_mounts": {},
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": types,
        **{name: [] for name in (*SYNCED, *(f"{phase}_commands" for phase in PHASES))},
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[GrowingCluster]:
    address = f"127.0.0.1:{free_port()}"
    nodes = tmp_path / "autoscaler.json"
    nodes.write_text(json.dumps(autoscaler_config(address)))
    options = (
        *("--num-cpus=0", "--num-gpus=0", "--include-dashboard=false", f"--port={address.split(':')[1]}"),
        *(f"--autoscaling-config={nodes}", f"--system-config={json.dumps(NOTICE_SOON)}"),
    )
    environment = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray keeps to the loopback interface
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_METRIC_PORT": str(free_port()),
    }
    with ray_head(tmp_path / "head.log", *options, environment=environment) as head:
        yield GrowingCluster(head)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "codes"


@pytest.fixture
def run(cluster: GrowingCluster, output: Path) -> Iterator[subprocess.Popen[str]]:
    """The GPUs are not there yet, and no number of actors is said."""
    settings = (SHARDS, *PRETEND_GPUS, f"cluster.address={cluster.head.address}", "run.max_attempts=1")
    environment = {**cluster.head.environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    process = start_command("tokenize", CONFIG, f"output.uri={output}", *settings, environment=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_run_grows_its_cluster_from_nothing_outlives_a_preemption_and_leaves_no_node_behind(
    cluster: GrowingCluster, run: subprocess.Popen[str], output: Path, tmp_path: Path
):
    held: set[psutil.Process] = set()

    def hold_actors() -> set[psutil.Process]:
        """Stopped, so that the run cannot be over before what the test waits for has happened."""
        for actor in set(cluster.actors()) - held:
            actor.send_signal(signal.SIGSTOP)
            held.add(actor)
        return held

    def ended() -> bool:
        return run.poll() is not None

    wait_for(lambda: len(list(output.glob("_moss_tok/shards/[!.]*.json"))) > 0 or ended())
    assert not ended(), run.communicate()
    first = min(cluster.actors(), key=psutil.Process.create_time)
    wait_for(lambda: len(hold_actors()) == WORKERS or ended())
    assert not ended(), run.communicate()
    before = set(cluster.workers())
    assert len(before) == WORKERS
    cluster.remove_node(first)
    wait_for(lambda: bool(set(cluster.workers()) - before) or ended())
    for actor in held - {first}:
        actor.send_signal(signal.SIGCONT)
    _, complaint = run.communicate(timeout=DEADLINE_SECONDS)
    assert run.returncode == 0, complaint
    assert "waiting for nodes: an actor needs 1 GPUs and 1 CPUs on one node" in complaint
    assert "the cluster has capacity for 2 actors now (1 before)" in complaint
    assert "lost its node and goes back to the queue" in complaint
    tokenize_in_process(demo_config(tmp_path / "clean", SHARDS))
    assert data_files(output) == data_files(tmp_path / "clean")
    wait_for(lambda: not cluster.workers())
