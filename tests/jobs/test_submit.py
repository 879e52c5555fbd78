"""A real cluster on this machine, and the AudioSet job submitted to it as its users do."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support import CORPUS, ROOT

# `python` of a submitted job is looked up on the PATH of the head, and both sides must know the cluster's token.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(16),
}
ENVIRONMENT.pop("RAY_ADDRESS", None)
LABELS = {"0870.wav": ["Speech", "Female speech, woman speaking"], "0880.wav": ["Speech"]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the dashboard of a Ray head that this test started, on the loopback interface alone."""
    # Unix sockets have short names, so Ray's folder cannot be pytest's.
    folder = tmp_path_factory.mktemp("ray")
    temporary = Path(f"/tmp/moss-{os.getpid()}")
    dashboard = free_port()
    command = [
        str(Path(sys.executable).parent / "ray"),
        *("start", "--block", "--head", "--disable-usage-stats", "--num-cpus=3", "--object-store-memory=150000000"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--port={free_port()}", f"--temp-dir={temporary}", "--include-dashboard=true"),
    ]
    log = (folder / "head.log").open("w")
    head = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for_dashboard(address, head, folder / "head.log")
        yield address
    finally:
        head.send_signal(signal.SIGTERM)  # --block ends what it started; `ray stop` would end other clusters too
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        log.close()
        shutil.rmtree(temporary, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_dashboard(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
            return
        except urllib.error.HTTPError:
            return  # it answers: without a token it will not say its version
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no dashboard at {address}:\n{log.read_text()}")


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


def submit(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "job", "submit", "--address", address, "--working-dir", ".", "--", "python", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


def test_the_audioset_job_runs_on_a_cluster_and_keeps_the_labels(cluster: str, tmp_path: Path):
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


def test_a_job_that_cannot_be_configured_fails_on_the_cluster_with_its_reason(cluster: str, tmp_path: Path):
    result = submit(cluster, "jobs/tokenize_dataset.py", "configs/demo.yaml", "model.colour=red")
    assert result.returncode != 0
    assert "model.colour: unknown key" in result.stdout + result.stderr
