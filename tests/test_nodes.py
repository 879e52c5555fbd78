"""Nodes that leave and join while a run is on: a Ray cluster of several nodes on this machine, with pretend GPUs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from pipeline.codecs.machine import name_machine
from pipeline.dataset.machines import OutputMachine
from pipeline.dataset.manifest import read_manifests
from pipeline.dataset.opening import open_output
from pipeline.monitoring.status import Observer
from pipeline.shard.tokenize import tokenize_shard
from pipeline.steps.encode import load_encoder
from tests.ray_head import again_if_late
from tests.support import (
    CONFIG,
    DEADLINE_SECONDS,
    PRETEND_GPUS,
    data_files,
    demo_config,
    kill,
    start_command,
    tokenize_in_process,
    wait_for,
)

# A node that is killed is noticed by its silence: after a quarter of a minute by default.
NOTICE_SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 100 * 2**20, "include_dashboard": False}
SHARDS = "input.clips_per_shard=4"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("clean") / "codes"
    tokenize_in_process(demo_config(output, SHARDS))
    return data_files(output)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without room for actors."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        head = NODE | {"num_cpus": 0, "num_gpus": 0, "_system_config": NOTICE_SOON}
        cluster = again_if_late(lambda: Cluster(initialize_head=True, head_node_args=head))
        stack.callback(cluster.shutdown)
        yield cluster


def add_node(cluster: Cluster, **resources: Any) -> Any:
    return again_if_late(lambda: cluster.add_node(**resources, **NODE))


def start_run(cluster: Cluster, output: Path, *settings: str) -> Any:
    return start_command(
        *("tokenize", CONFIG, f"output.uri={output}", SHARDS, f"cluster.address={cluster.address}"),
        *(*PRETEND_GPUS, *settings),
    )


def commits(output: Path) -> int:
    return len(list((output / "_moss_tok" / "shards").glob("[!.]*.json")))


def test_a_run_outlives_its_only_node_and_goes_on_with_the_one_that_joins(
    clean: dict[str, bytes], cluster: Cluster, tmp_path: Path
):
    output = tmp_path / "codes"
    first = add_node(cluster, num_cpus=2, num_gpus=1)
    run = start_run(cluster, output, "cluster.gpus_per_actor=0.6", "run.max_attempts=1")
    wait_for(lambda: commits(output) > 0 or run.poll() is not None)
    held = hold("ray::TokenizerActor")
    assert len(held) == 1
    cluster.remove_node(first, allow_graceful=False)
    kill(held)
    add_node(cluster, num_cpus=2, num_gpus=1)
    _, complaint = run.communicate(timeout=DEADLINE_SECONDS)
    assert run.returncode == 0, complaint
    assert "lost its node and goes back to the queue" in complaint
    assert data_files(output) == clean


def test_a_reader_that_went_with_its_node_is_no_fault_of_the_shard(
    clean: dict[str, bytes], cluster: Cluster, tmp_path: Path
):
    """And an actor that there is no room for, of two that are asked for, holds nothing up."""
    output = tmp_path / "codes"
    add_node(cluster, num_cpus=1, num_gpus=1)  # the actor takes all of it
    readers = add_node(cluster, num_cpus=1)
    run = start_run(cluster, output, "cluster.actors=2", "run.max_attempts=1", "cluster.shards_per_actor=1")
    held: list[psutil.Process] = []
    wait_for(lambda: bool(held.extend(hold("ray::_prepare")) or held) or run.poll() is not None)
    cluster.remove_node(readers, allow_graceful=False)
    kill(held)
    add_node(cluster, num_cpus=1)
    _, complaint = run.communicate(timeout=DEADLINE_SECONDS)
    assert run.returncode == 0, complaint
    assert "capacity for 1 of 2 now, the others wait: an actor needs 1 GPUs and 1 CPUs on one node" in complaint
    assert "lost its node and goes back to the queue" in complaint
    assert data_files(output) == clean


def hold(kind: str) -> list[psutil.Process]:
    """Stop the workers of a kind where they are, so that their node is lost under them and the run is not over."""
    held = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "".join(process.cmdline()[:1]).startswith(kind):  # of a zombie: nothing
                process.send_signal(signal.SIGSTOP)
                held.append(process)
    return held


HOLD_GPU = """
import sys, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as There
class Holder:
    def holds(self): pass
address, node = sys.argv[1:]
ray.init(address=address, log_to_driver=False)
holder = ray.remote(num_gpus=1)(Holder).options(scheduling_strategy=There(node, soft=False)).remote()
ray.get(holder.holds.remote())
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def busy_gpu(cluster: Cluster, node: Any) -> Iterator[None]:
    """Hold the node's one GPU, so that an actor starts on another node or waits."""
    command = [sys.executable, "-c", HOLD_GPU, cluster.address, node.node_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.kill()


def wait_for_line(run: Any, part: str) -> str:
    """All that a run has said to its error stream when it has said a line with this part."""
    said = ""
    for line in run.stderr:
        said += line
        if part in line:
            return said
    raise AssertionError(said)


AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def test_encoders_keep_off_a_node_of_another_kind_unless_any_is_asked_for(
    clean: dict[str, bytes], cluster: Cluster, tmp_path: Path
):
    """An output was begun on this machine. A node with AVX2 alone is refused while it is the only one, and reads and
    decodes when there is another. With `any` it goes on, and that is said."""
    output, mixed = tmp_path / "codes", tmp_path / "mixed"
    config = demo_config(output, SHARDS)
    begun = open_output(config)
    encoder = load_encoder(config.model, begun.record.num_quantizers, config.batch.max_frames)
    OutputMachine(begun, "same").check(encoder.machine)
    tokenize_shard(begun.specs[0], encoder, config, begun.record)
    shutil.copytree(output, mixed)
    add_node(cluster, num_cpus=2, num_gpus=1, env_vars=AVX2)
    refused = start_run(cluster, output)
    _, complaint = refused.communicate(timeout=DEADLINE_SECONDS)
    assert refused.returncode == 2, complaint
    assert "this output is made on" in complaint
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in complaint
    assert "run.machines=any" in complaint
    assert commits(output) == 1
    run = start_run(cluster, mixed, "run.machines=any")
    _, complaint = run.communicate(timeout=DEADLINE_SECONDS)
    assert run.returncode == 0, complaint
    made_on = Observer(str(mixed)).look().lines()["made on"]
    assert f"1 shard on {name_machine(encoder.machine)}" in made_on
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in made_on
    assert made_on in (mixed / "README.md").read_text()
    with busy_gpu(cluster, add_node(cluster, num_cpus=3, num_gpus=1)):
        run = start_run(cluster, output, "cluster.actors=1")
        said = wait_for_line(run, "only reads and decodes: this output is made on")
    said += "".join(run.stderr)
    assert run.wait(DEADLINE_SECONDS) == 0, said
    assert data_files(output) == clean
    manifests = list(read_manifests(begun.layout, {spec.shard_id for spec in begun.specs}))
    assert {name_machine(manifest.machine) for manifest in manifests} == {name_machine(encoder.machine)}
