"""Ctrl-C at any moment of a run: it ends with status 130 and no traceback, and the same command goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.kills.sitecustomize import VARIABLE, Point
from tests.support import CONFIG, CORPUS, demo_config, rows, run_command, tokenize_in_process

MOMENTS = {
    "while the command is imported": ("pipeline.cli.options", "add_config", 1, "before"),
    "while the configuration is read": ("pipeline.config", "load_config", 1, "after"),
    "while the input is listed": ("pipeline.storage", "list_objects", 1, "before"),
    "while Ray starts": ("ray", "init", 1, "before"),
    "while the actors start": ("pipeline.distributed.actor_pool", "ActorPool._scale", 1, "after"),
    "when a shard is committed": ("pipeline.distributed.scheduler", "Scheduler.committed", 1, "before"),
    "while the actors are ended": ("pipeline.distributed.actor_pool", "ActorPool.kill_all", 1, "before"),
    "while Ray is shut down": ("ray", "shutdown", 1, "before"),
    "while the card is written": ("pipeline.dataset.dataset", "dataset_card", 1, "after"),
}
OWN_RAY = {"while Ray starts", "while Ray is shut down"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_three_at_once_end_the_run_at_any_moment(moment: str, cluster_for_all: Mapping[str, str], tmp_path: Path):
    output, mark = tmp_path / "codes", tmp_path / "mark"
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in ("0870.wav", "0880.wav"):
        (inputs / name).write_bytes((CORPUS / "folder" / "librivox" / name).read_bytes())
    point = Point(*MOMENTS[moment], mark=str(mark), number=signal.SIGINT, times=3)
    environment = {VARIABLE: json.dumps(asdict(point)), "PYTHONPATH": str(Path(__file__).parent / "kills")}
    if moment not in OWN_RAY:
        environment |= cluster_for_all
    settings = [f"input.splits.train={inputs}", "input.clips_per_shard=1"]
    ended = run_command(
        "tokenize", CONFIG, f"output.uri={output}", "cluster.actors=1", *settings, environment=environment
    )
    assert mark.exists(), "this moment was never reached"
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    tokenize_in_process(demo_config(output, *settings))
    assert len(rows(output)) == 2
