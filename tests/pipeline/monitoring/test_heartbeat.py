"""What a run says of itself: written over and over, read by anyone, believed only as long as it moves."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.dataset.layout import Layout
from pipeline.monitoring import heartbeat
from pipeline.monitoring.heartbeat import SILENT_SECONDS, Heartbeat, first_beat, new_run_id, read_heartbeats


def test_the_last_beat_of_each_run_is_what_is_read_oldest_run_first(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    assert read_heartbeats(layout) == []
    early = replace(first_beat("b"), started_at=1.0, failures={"abc": "no column audio"})
    late = replace(first_beat("a"), started_at=2.0)
    for beat in (late, early, replace(late, shards_committed=7)):
        heartbeat.publish(layout, beat)
    assert read_heartbeats(layout) == [early, replace(late, shards_committed=7)]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"run_id": "x"}', b"null"])
def test_what_is_no_heartbeat_is_passed_over(content: bytes, tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    heartbeat.publish(layout, first_beat("good"))
    Path(layout.heartbeat("bad")).write_bytes(content)
    assert [beat.run_id for beat in read_heartbeats(layout)] == ["good"]


def test_a_key_of_a_later_version_is_passed_over() -> None:
    beat = first_beat("a")
    later = beat.to_bytes().replace(b"{", b'{"colour": "red",', 1)
    assert Heartbeat.from_bytes(later) == beat


def test_a_run_that_does_not_move_is_silent_and_one_that_ended_stays_ended() -> None:
    beat = replace(first_beat("a"), moved_at=1000.0)
    assert beat.state_at(1000.0 + SILENT_SECONDS - 1) == "running"
    assert beat.state_at(1000.0 + SILENT_SECONDS + 1) == "silent"
    assert replace(beat, state="done").state_at(1e12) == "done"


def test_runs_that_begin_together_have_names_of_their_own() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100


def test_a_run_may_be_at_work_unless_it_ended_or_does_not_move_or_its_process_here_is_gone() -> None:
    beat = first_beat("a")
    now = beat.moved_at
    assert beat.may_be_at_work(now)
    assert not replace(beat, state="done").may_be_at_work(now)
    assert not beat.may_be_at_work(now + SILENT_SECONDS + 1)
    with subprocess.Popen(["true"]) as process:
        pass
    assert not replace(beat, pid=process.pid).may_be_at_work(now)
    assert replace(beat, pid=process.pid, host="elsewhere").may_be_at_work(now)
