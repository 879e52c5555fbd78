"""The Slurm script, with commands in place of Slurm's and Ray's that say how they were called."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import DEADLINE_SECONDS, ROOT, wait_for

COMMANDS = {
    "scontrol": "echo node-1; echo node-2; echo node-3",
    # Options, and then the command, here as there.
    "srun": 'echo "srun $*" >> $LOG; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": """
        [ -z "${RAY_FAILS:-}" ] || exit 1
        trap 'echo "ray ended" >> $LOG; exit 0' TERM
        echo >> $LOG.started
        for option; do [[ $option == --temp-dir=* ]] && echo 10.0.0.1:1234 > "${option#*=}/ray_current_cluster"; done
        while true; do sleep 0.05; done""",
    # The run is over at once, so it begins when each `ray` is there to be ended.
    "moss-tok": """
        until [ "$(wc -l < $LOG.started)" -ge $STEPS ]; do sleep 0.05; done
        echo "moss-tok $* at $RAY_ADDRESS with ${#RAY_AUTH_TOKEN} digits" >> $LOG
        [ -z "${RUN_WAITS:-}" ] || { trap 'sleep 0.2; echo "run ended" >> $LOG; exit 130' TERM; touch $LOG.waits
            while true; do sleep 0.05; done; }
        exit ${RUN_STATUS:-0}""",
}

Submit = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def submit(tmp_path: Path, log: Path) -> Iterator[Submit]:
    """Start the script as on the first of so many nodes."""
    started: list[subprocess.Popen[str]] = []
    for name, text in COMMANDS.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def run(*arguments: str, nodes: int = 3, **environment: str) -> subprocess.Popen[str]:
        slurm = {"SLURM_JOB_NODELIST": "node-[1-3]", "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_CPUS_PER_TASK": "16"}
        given = os.environ | slurm | {"SLURM_GPUS_ON_NODE": "4", "LOG": str(log), "TMPDIR": str(tmp_path)} | environment
        given["STEPS"] = str(min(nodes, 2))
        given["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        command = ["bash", str(ROOT / "deploy" / "slurm.sbatch"), *arguments]
        process = subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_ray_starts_on_every_node_and_ends_with_the_run(submit: Submit, log: Path):
    process = submit("configs/demo.yaml", "output.uri=/shared/a b", RUN_STATUS="1")
    assert process.wait(DEADLINE_SECONDS) == 1
    lines = log.read_text().splitlines()
    steps = [line for line in lines if line.startswith("srun")]
    head = next(line for line in steps if "--head" in line)
    others = next(line for line in steps if "--head" not in line)
    assert "--nodes=1 --ntasks=1 --nodelist=node-1" in head
    assert "--nodes=2 --ntasks=2 --exclude=node-1" in others
    assert "--address=10.0.0.1:1234" in others
    assert all("--cpus-per-task=16" in line and "--num-cpus=16 --num-gpus=4" in line for line in steps)
    assert "moss-tok tokenize configs/demo.yaml output.uri=/shared/a b at 10.0.0.1:1234 with 32 digits" in lines
    assert lines.count("ray ended") == 2
    folder = Path(head.partition("--temp-dir=")[2].split()[0])
    assert not folder.exists()


def test_one_node_has_the_head_alone(submit: Submit, log: Path):
    assert submit("a.yaml", nodes=1).wait(DEADLINE_SECONDS) == 0
    assert log.read_text().count("srun") == 1


def test_before_the_time_is_up_the_run_is_ended_in_order(submit: Submit, log: Path):
    process = submit("a.yaml", RUN_WAITS="1")
    wait_for(Path(f"{log}.waits").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECONDS) == 130
    assert log.read_text().splitlines()[-3:] == ["run ended", "ray ended", "ray ended"]


def test_a_head_that_does_not_start_ends_the_job(submit: Submit):
    process = submit("a.yaml", RAY_FAILS="1")
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert "Ray did not start on node-1" in err


def test_without_a_configuration_it_says_how_it_is_used(submit: Submit):
    process = submit()
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 2
    assert "CONFIG.yaml" in err
