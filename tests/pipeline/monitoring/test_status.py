"""How far an output is: by what is committed, and by what its runs say of themselves, be they alive or dead."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.cli import status as command
from pipeline.dataset.layout import Layout
from pipeline.dataset.opening import open_output
from pipeline.monitoring import heartbeat
from pipeline.monitoring.heartbeat import SILENT_SECONDS, Heartbeat, first_beat
from pipeline.monitoring.status import Observer
from tests.support import demo_config, tokenize_in_process


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output that no run under Ray has made: it has no heartbeats."""
    output = tmp_path_factory.mktemp("finished") / "codes"
    tokenize_in_process(demo_config(output, "input.splits.train=[demo/corpus/webdataset/*.tar]"))
    return output


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """An output with a plan and nothing else."""
    output = tmp_path / "codes"
    open_output(demo_config(output, "input.clips_per_shard=10"))
    return output


def beat(output: Path, **changes: object) -> Heartbeat:
    written = replace(first_beat("20260101T000000Z-abcdef"), **changes)  # type: ignore[arg-type]
    heartbeat.publish(Layout(str(output)), written)
    return written


def status(*arguments: str) -> int:
    """The command, in this process."""
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(arguments))


@pytest.mark.slow
def test_an_output_without_heartbeats_has_a_status(finished: Path) -> None:
    seen = Observer(str(finished)).look()
    assert seen.complete
    assert (seen.alive, seen.last, seen.speed, seen.seconds_left) == ([], [], 0, None)
    assert seen.shards == {"committed": 2, "open": 0, "waiting": 0, "failed": 0}
    assert seen.to_json()["clips"] > 0
    assert "2 of 2" in seen.lines()["shards"]


def test_shards_are_told_apart_by_state(begun: Path) -> None:
    beat(begun, shards_open=3, shards_failed=1, actors=2, speed=50.0, failures={"abc": "no column audio"}, retries=4)
    seen = Observer(str(begun)).look()
    planned = len(seen.output.specs)
    assert planned > 4
    assert seen.shards == {"committed": 0, "open": 3, "waiting": planned - 4, "failed": 1}
    assert not seen.complete
    document = seen.to_json()
    assert document["alive"]
    assert document["failures"] == {"abc": "no column audio"}
    assert document["retries"] == 4
    assert "2 actors" in seen.lines()["run 20260101T000000Z-abcdef"]


def test_a_run_that_does_not_move_is_not_alive_and_its_shards_wait_again(begun: Path) -> None:
    beat(begun, shards_open=3, speed=50.0, moved_at=time.time() - SILENT_SECONDS - 10)
    seen = Observer(str(begun)).look()
    assert seen.alive == []
    assert seen.speed == 0
    assert seen.shards["open"] == 0
    assert seen.shards["waiting"] == len(seen.output.specs)
    assert seen.lines()["run 20260101T000000Z-abcdef"].startswith("silent for 70 s: dead, or cut off")


def test_the_time_left_is_by_bytes_and_speed(finished: Path, tmp_path: Path) -> None:
    seen = Observer(str(finished)).look()
    first, second = seen.output.specs
    half = replace(
        seen, complete=False, bytes_done=first.size, runs=[replace(first_beat("a"), speed=10.0)], looked_at=time.time()
    )
    expected = seen.totals.audio_seconds / first.size * second.size / 10.0
    assert half.seconds_left == pytest.approx(expected)
    assert "time left" in half.lines()
    assert replace(half, bytes_done=0).seconds_left is None


def test_two_runs_that_are_alive_are_counted_together(begun: Path) -> None:
    for name in ("a", "b"):
        heartbeat.publish(Layout(str(begun)), replace(first_beat(name), speed=20.0, shards_open=1))
    seen = Observer(str(begun)).look()
    assert seen.speed == 40.0
    assert seen.shards["open"] == 2


def test_only_new_manifests_are_read_at_a_second_look(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = Observer(str(finished))
    before = observer.look()
    read: list[str] = []
    original = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri, *rest: read.append(uri) or original(uri, *rest))
    after = observer.look()
    assert after.totals == before.totals
    assert not [uri for uri in read if "/shards/" in uri]


def test_watching_ends_when_the_output_is_complete(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(str(finished), "--watch", "0.01", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["complete"]


def test_watching_looks_again_until_then(
    begun: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (begun / "_SUCCESS").write_text("")

    monkeypatch.setattr(command.time, "sleep", wait)
    assert status(str(begun), "--watch", "2") == 0
    assert waits == [2.0, 2.0, 2.0]
    out = capsys.readouterr().out
    assert out.count("not complete") == 3
    assert out.count("\n  shards ") == 4


@pytest.mark.parametrize("arguments", [["--watch", "0"], ["--watch", "-1"], ["--watch", "nan"]])
def test_a_watch_without_a_pause_is_refused(arguments: list[str], finished: Path) -> None:
    with pytest.raises(ValueError, match="above 0"):
        status(str(finished), *arguments)


def test_the_reasons_of_the_last_run_are_printed(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat(begun, state="failed", shards_failed=1, failures={"abc": "no column audio among sound"})
    assert status(str(begun)) == 0
    assert "no column audio among sound" in capsys.readouterr().out
