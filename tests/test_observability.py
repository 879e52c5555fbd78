"""A run as its operator sees it: metrics from the endpoint of a real Ray head, lines of JSON, and its status."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.layout import Layout
from pipeline.monitoring.heartbeat import read_heartbeats
from pipeline.monitoring.status import Observer
from tests.seaweed import free_ports
from tests.support import CONFIG, CORPUS, ROOT, start_command

DOCUMENTED = ROOT / "docs" / "operations.md"
COPIES = 10  # of some clips, so that the actors are at work for several of the driver's looks at them


@dataclass(frozen=True)
class Head:
    """A Ray head of this test, on the loopback interface."""

    address: str
    metrics: str
    logs: Path


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    port, metrics = free_ports(2)
    temporary = Path(f"/tmp/moss-obs-{os.getpid()}")  # Unix sockets have short names, so it cannot be pytest's folder
    command = [
        str(Path(sys.executable).parent / "ray"),
        *("start", "--block", "--head", "--disable-usage-stats", "--num-cpus=2", "--object-store-memory=150000000"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", f"--metrics-export-port={metrics}"),
        *(f"--temp-dir={temporary}", "--include-dashboard=false"),
        '--system-config={"metrics_report_interval_ms":500}',
    ]
    with pytest.MonkeyPatch.context() as patch, (tmp_path_factory.mktemp("ray") / "head.log").open("w") as log:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.delenv("RAY_ADDRESS", raising=False)
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_metrics(f"http://127.0.0.1:{metrics}/metrics", process)
            yield Head(
                f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics", temporary / "session_latest" / "logs"
            )
        finally:
            process.send_signal(signal.SIGTERM)  # --block ends what it started, and no other cluster
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(temporary, ignore_errors=True)


def wait_for_metrics(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head ended"
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no metrics at {address}")


def samples(address: str) -> dict[str, float]:
    """Every sample of ours, `name{labels}` -> value, without the labels that Ray adds."""
    text = urllib.request.urlopen(address, timeout=10).read().decode()
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"ray_(moss_tok_\w+)\{(.*)\} (\S+)", line):
            name, labels, value = match.groups()
            ours = sorted(re.findall(r'((?:run|reason|stage|state|actor)="[^"]*")', labels))
            found[f"{name}{{{','.join(ours)}}}"] = float(value)
    return found


@dataclass(frozen=True)
class Watched:
    """A run that was looked at while it went."""

    samples: dict[str, float]
    """The last value of everything that was ever on the endpoint."""
    statuses: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    output: Path


@pytest.fixture(scope="module")
def watched(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    for number in range(COPIES):
        for packing in ("parquet", "webdataset"):
            shutil.copytree(CORPUS / packing, folder / f"copy-{number}", dirs_exist_ok=True)
    output = folder / "codes"
    sources = f"input.splits.train=['{folder}/copy-*/*.parquet', '{folder}/copy-*/*.tar']"
    arguments = ["tokenize", CONFIG, sources, f"output.uri={output}"]
    settings = ["input.clips_per_shard=2", "run.log_format=json", f"cluster.address={head.address}"]
    run = start_command(*arguments, *settings)
    seen: dict[str, float] = {}
    statuses: list[dict[str, Any]] = []
    while run.poll() is None:
        seen |= samples(head.metrics)
        if not statuses and "moss_tok_speed" in str(seen):
            statuses.append(Observer(str(output)).look().to_json())
    _, err = run.communicate()
    assert run.returncode == 0, err
    statuses.append(Observer(str(output)).look().to_json())
    return Watched(seen, statuses, [json.loads(line) for line in err.splitlines()], output)


def test_every_documented_metric_is_on_the_endpoint_and_every_other_is_documented(watched: Watched):
    table = re.findall(r"^\| `ray_(moss_tok_\w+)` \|", DOCUMENTED.read_text(), re.MULTILINE)
    seen = {re.sub(r"_(bucket|sum|count)$", "", name.partition("{")[0]) for name in watched.samples}
    quiet = {"moss_tok_retries_total"}  # of a run without trouble
    assert seen == set(table) - quiet


def test_metrics_count_what_the_manifests_say(watched: Watched):
    (run,) = read_heartbeats(Layout(str(watched.output)))
    label = f'run="{run.run_id}"'
    audio = watched.samples[f"moss_tok_audio_seconds_total{{{label}}}"]
    assert 0 < audio <= watched.statuses[-1]["audio_seconds"] + 1e-6
    rejects = {name: count for name, count in watched.samples.items() if name.startswith("moss_tok_rejects_total")}
    reasons = watched.statuses[-1]["rejects_by_reason"]
    for name, count in rejects.items():
        assert 0 < count <= reasons[re.search(r'reason="(\w+)"', name)[1]]  # type: ignore[index]
    states = {name: count for name, count in watched.samples.items() if name.startswith("moss_tok_shards")}
    assert sum(states.values()) == watched.statuses[-1]["shards_planned"]
    assert 0 < watched.samples[f"moss_tok_encoder_busy_fraction{{{label}}}"] <= 1


def test_status_tells_of_a_live_run_and_of_its_end(watched: Watched):
    during, after = watched.statuses
    assert during["alive"]
    assert not during["complete"]
    assert during["shards_committed"] + during["shards_open"] + during["shards_waiting"] == during["shards_planned"]
    assert after["complete"]
    assert not after["alive"]
    assert [run["state"] for run in after["runs"]] == ["done"]
    assert after["runs"][0]["shards_committed"] == after["shards_planned"]


def test_each_line_of_the_driver_is_an_object_that_says_what_it_is_about(watched: Watched):
    (run,) = read_heartbeats(Layout(str(watched.output)))
    committed = [line for line in watched.lines if line["message"] == "committed"]
    assert len(committed) == watched.statuses[-1]["shards_planned"]
    assert len({line["shard"] for line in committed}) == len(committed)
    assert {line["run"] for line in committed} == {run.run_id}
    assert all({"time", "level", "logger", "process", "pid"} <= line.keys() for line in watched.lines)


def test_actors_log_each_reject_with_its_clip_in_the_log_of_their_worker(watched: Watched, head: Head):
    lines = [line for path in head.logs.glob("worker-*.err") for line in path.read_text().splitlines()]
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    rejected = [line for line in objects if line["message"].startswith("rejected: ")]
    assert len(rejected) == watched.statuses[-1]["rejects"]
    for line in rejected:
        assert line["clip"].startswith(line["shard"])
        assert line["reason"] in watched.statuses[-1]["rejects_by_reason"]
        assert line["process"] == "actor"
