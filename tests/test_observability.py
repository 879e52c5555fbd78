"""A run as its operator sees it: metrics from the endpoint of a real Ray head, lines of JSON, and its status."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.layout import Layout
from pipeline.monitoring.heartbeat import read_heartbeats
from pipeline.monitoring.status import Observer
from tests.ray_head import ray_head
from tests.support import CONFIG, CORPUS, DEADLINE_SECONDS, ROOT, answers, free_port, start_command, wait_for

DOCUMENTED = ROOT / "docs" / "operations.md"
COPIES = 10  # of some clips, so that the actors are at work for several of the driver's looks at them


@dataclass(frozen=True)
class Head:
    """A Ray head of this test, and where its metrics and logs are."""

    address: str
    metrics: str
    logs: Path


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    port = free_port()
    options = ("--num-cpus=2", "--include-dashboard=false", f"--metrics-export-port={port}")
    often = '--system-config={"metrics_report_interval_ms":500}'
    metrics = f"http://127.0.0.1:{port}/metrics"
    with (
        ray_head(tmp_path_factory.mktemp("ray") / "head.log", *options, often) as ray,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in ray.environment.items():
            patch.setenv(name, value)
        wait_for(lambda: answers(metrics))
        yield Head(ray.address, metrics, ray.folder / "session_latest" / "logs")


def samples(address: str) -> dict[str, float]:
    """Every sample of ours, `name{labels}` -> value, without the labels that Ray adds."""
    text = urllib.request.urlopen(address, timeout=DEADLINE_SECONDS).read().decode()
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
        with suppress(subprocess.TimeoutExpired):
            run.wait(0.2)
    _, err = run.communicate()
    assert run.returncode == 0, err
    statuses.append(Observer(str(output)).look().to_json())
    return Watched(seen, statuses, [json.loads(line) for line in err.splitlines()], output)


def test_every_documented_metric_is_on_the_endpoint_and_every_other_is_documented(watched: Watched):
    table = re.findall(r"^\| `ray_(moss_tok_\w+)` \|", DOCUMENTED.read_text(), re.MULTILINE)
    seen = {re.sub(r"_(bucket|sum|count)$", "", name.partition("{")[0]) for name in watched.samples}
    quiet = {"moss_tok_retries_total"}  # of a run without trouble
    assert set(table) - quiet <= seen <= set(table)


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
