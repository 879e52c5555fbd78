"""Lines that show that a run lives: few enough to be read, and with what a reader wants to know."""

from __future__ import annotations

import logging

import pytest

from pipeline.dataset.totals import Totals
from pipeline.monitoring import progress
from pipeline.monitoring.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_line_at_the_first_shard_then_every_quarter_of_a_minute_and_at_the_end(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), Progress(shards=100, done_before=20) as shown:
        for done in range(1, 61):
            clock[0] += 1
            shown.update(Totals(shards=done, audio_seconds=done * 36.0), done * 36.0)
    lines = lines_of(caplog)
    assert len(lines) == 1 + 3 + 1
    assert lines[0].startswith("21/120 shards, 0.01 h encoded, 36x real time, 0 rejects, about 2 min left")
    assert lines[-1].startswith("80/120 shards, 0.60 h encoded")


def test_nothing_is_said_before_a_shard_is_done(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Progress(shards=3, done_before=0) as shown:
        clock[0] += 100
        shown.update(Totals(), 500.0)
    assert lines_of(caplog) == []


def test_a_line_has_its_figures_as_fields_for_machines(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Progress(shards=3, done_before=0, log_format="json") as shown:
        clock[0] += 1
        shown.update(Totals(shards=1, rejects=2), 10.0, failed=1)
    record = caplog.records[0]
    assert vars(record).items() >= {"committed": 1, "failed": 1, "rejects": 2, "audio_seconds": 10.0}.items()
    assert "1 shards failed" in record.getMessage()


def test_a_note_says_what_it_is_about_and_may_hold_any_character(caplog: pytest.LogCaptureFixture) -> None:
    with Progress(shards=3, done_before=0) as shown:
        shown.note("100 % of %s failed", shard="abc")
    assert lines_of(caplog) == ["100 % of %s failed"]
    assert vars(caplog.records[0])["shard"] == "abc"
