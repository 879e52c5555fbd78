"""A real cluster on this machine, and the AudioSet job submitted to it as its users do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.ray_head import BIN, ray_head
from tests.support import CORPUS, DEADLINE_SECONDS, ROOT, answers, free_port, wait_for

LABELS = {"0870.wav": ["Speech", "Female speech, woman speaking"], "0880.wav": ["Speech"]}


NOT_YET = "No available agent to submit job"
"""What a dashboard says that answers before the process that starts its jobs. The remedy is to submit again."""


@dataclass(frozen=True)
class Cluster:
    dashboard: str
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Ray head that takes jobs."""
    port = free_port()
    dashboard = ("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}")
    with ray_head(tmp_path_factory.mktemp("ray") / "head.log", "--num-cpus=3", *dashboard) as head:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{address}/api/version"))
        yield Cluster(address, head.environment)


def audioset_tar(path: Path, names: list[str]) -> None:
    """A shard as AudioSet is passed around: sound and its labels."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            stem = name.partition(".")[0]
            sound = (CORPUS / "folder" / "librivox" / name).read_bytes()
            notes = json.dumps({"labels": LABELS.get(name, ["Speech"]), "video_id": f"yt-{stem}"}).encode()
            for member, data in ((f"yt-{stem}.wav", sound), (f"yt-{stem}.json", notes)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def submit(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard, "--working-dir", "."]
    environment = os.environ | cluster.environment
    results: list[subprocess.CompletedProcess[str]] = []

    def is_taken() -> bool:
        results[:] = [
            subprocess.run(
                [*command, "--", "python", *arguments],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
                env=environment,
            )
        ]
        return NOT_YET not in results[0].stdout + results[0].stderr

    wait_for(is_taken)
    return results[0]


def test_the_audioset_job_runs_on_a_cluster_and_keeps_the_labels(cluster: Cluster, tmp_path: Path):
    audioset_tar(tmp_path / "train-0.tar", ["0870.wav", "0880.wav"])
    audioset_tar(tmp_path / "train-1.tar", ["0890.wav"])
    audioset_tar(tmp_path / "eval-0.tar", ["0920.wav"])
    output = tmp_path / "codes"
    arguments = ["jobs/tokenize_audioset.py", "--train", f"{tmp_path}/train-*.tar", "--eval", f"{tmp_path}/eval-*.tar"]
    result = submit(cluster, *arguments, "--output", str(output), "model.name=cat-tiny")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (output / "_SUCCESS").exists()
    train = [row for path in (output / "data" / "train").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    labels = {row["key"]: row["labels"] for row in train}
    assert labels == {"yt-0870": LABELS["0870.wav"], "yt-0880": LABELS["0880.wav"], "yt-0890": ["Speech"]}
    (evaluated,) = (output / "data" / "eval").glob("*.parquet")
    assert pq.read_table(evaluated)["key"].to_pylist() == ["yt-0920"]


def test_a_job_that_cannot_be_configured_fails_on_the_cluster_with_its_reason(cluster: Cluster, tmp_path: Path):
    result = submit(cluster, "jobs/tokenize_dataset.py", "configs/demo.yaml", "model.colour=red")
    assert result.returncode != 0
    assert "model.colour: unknown key" in result.stdout + result.stderr
