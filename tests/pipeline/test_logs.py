"""Log lines: one object each for machines, readable ones for people, and never an exception."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from pipeline import logs

logger = logging.getLogger("pipeline.some_module")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is the process's own: put back what pytest has set up."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("pipeline", "moss_tok")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, value in levels.items():
        logging.getLogger(name).setLevel(value)


def test_a_line_of_json_has_the_process_and_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", run="r1", process="driver")
    logger.info("%d rows", 3, extra={"shard": "abc", "clip": "abc-00000001"})
    line = json.loads(capsys.readouterr().err)
    moment = line.pop("time")
    assert moment.endswith("Z")
    assert line == {
        "level": "info",
        "logger": "pipeline.some_module",
        "message": "3 rows",
        "run": "r1",
        "process": "driver",
        "shard": "abc",
        "clip": "abc-00000001",
    }


@pytest.mark.parametrize("text", ["two\nlines", 'quotes " and \\', "name \udcff of no encoding", "\x1b[31m", "日本語"])
def test_any_text_stays_one_line_and_comes_back(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    logger.warning("%s", text, extra={"key": text})
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert json.loads(err)["key"] == text


def test_an_exception_comes_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    try:
        raise RuntimeError("a bad day")
    except RuntimeError:
        logger.exception("it failed")
    assert "RuntimeError: a bad day" in json.loads(capsys.readouterr().err)["error"]


def test_a_terminal_shows_warnings_and_what_is_meant_for_it_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("text", run="r1")
    logger.info("of no interest", extra={"shard": "abc"})
    logger.info("3/4 shards", extra=logs.plain(committed=3))
    logger.warning("careful")
    logging.getLogger("botocore").info("chatter")
    assert capsys.readouterr().err == "3/4 shards\nWARNING: careful\n"


def test_the_text_log_of_an_actor_says_when_and_about_what(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", everything=True)
    logger.info("opened", extra={"shard": "abc", "attempt": 1})
    assert capsys.readouterr().err.endswith(" INFO opened shard=abc attempt=1\n")
