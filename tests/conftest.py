"""Fixtures that the end-to-end tests share."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# One thread for each process, set before torch and numpy are imported: `make test` runs a process for each core. Where
# all cores are busy, a product of two threads waits for the one that has none, which made it 20 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import tiers
from tests.ray_head import ray_head
from tests.support import CONFIG, CORPUS, end_commands, run_command


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(tiers)
    # A shell lets what it starts in the background ignore SIGINT, and so would every process of these tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_command_outlives_its_test() -> Iterator[None]:
    yield
    end_commands()


@pytest.fixture(scope="session")
def inventory() -> list[dict[str, Any]]:
    """One entry for each clip of the demo corpus, with what must become of it."""
    return [json.loads(line) for line in (CORPUS / "inventory.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def cluster_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment that leads a command to a Ray cluster: one for all tests that ask for no more than one.

    Starting Ray takes a third of the CPU time of a short run. Tests of how a run starts its own Ray do not use this.
    """
    log = tmp_path_factory.mktemp("ray") / "head.log"
    with ray_head(log, "--num-cpus=4", "--include-dashboard=false") as head:
        yield head.environment


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The demo corpus, tokenized by the command with two actors, once for all processes of a test run."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder if worker_id == "master" else folder.parent) / "demo"
    with FileLock(f"{folder}.lock"):
        if not (folder / "codes" / "_SUCCESS").exists():
            tokenize_demo(folder / "codes")
    return folder / "codes"


def tokenize_demo(output: Path) -> None:
    result = run_command("tokenize", CONFIG, f"output.uri={output}", "cluster.actors=2", "input.clips_per_shard=10")
    assert result.returncode == 0, result.stderr
    assert str(output) in result.stdout
    assert 'load_dataset("' in result.stdout
    assert "untrained" not in result.stdout
    assert "shards" in result.stderr, "a run without a terminal prints its progress as lines"
