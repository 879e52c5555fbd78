"""An interrupt whose exception was dropped on the way still ends the run."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import ClassVar

import pytest

import pipeline.distributed.driver
from pipeline import signals
from tests.support import DEADLINE_SECONDS, ROOT, demo_config


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    with signals.listening():
        yield
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_was_dropped_is_raised_again_once(number: signal.Signals):
    signals.check()
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(number)
        pytest.fail("the first one interrupts at once")
    with pytest.raises(KeyboardInterrupt):
        signals.check()
    signals.check()


def test_an_interrupt_is_noted_though_another_has_taken_the_handler():
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signals.check()


def test_a_second_command_in_a_process_does_not_inherit_the_interrupts_of_the_first():
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with signals.listening():
        signals.check()


def test_other_signals_interrupt_nothing():
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        signal.raise_signal(signal.SIGUSR1)
        signals.check()
    finally:
        signal.signal(signal.SIGUSR1, before)


GUARDED = """
import hashlib, signal, sys
from pipeline import signals
signals.guard()
{before}
with signals.listening():
    try:
        print("ready", flush=True)
        {work}
    except KeyboardInterrupt:
        print("stopping", flush=True)
        {cleaning}
sys.exit(130)
"""
BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)  # releases the interpreter and lets no handler run"


def start_guarded(work: str = "pass", cleaning: str = "pass", before: str = "") -> subprocess.Popen[str]:
    script = GUARDED.format(work=work, cleaning=cleaning, before=before)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-uc", script], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def assert_interrupted(process: subprocess.Popen[str], *said: str) -> None:
    try:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()  # where it did not end by itself
    assert process.returncode == 130
    assert out in said
    assert "Traceback" not in err


def test_the_first_interrupt_of_a_command_lets_it_clean_up():
    process = start_guarded(work="signal.pause()", cleaning="print('clean')")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert_interrupted(process, "stopping\nclean\n")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_second_ends_it_in_the_middle_of_cleaning_up(first: signal.Signals):
    process = start_guarded(work="signal.pause()", cleaning=BUSY)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(first)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGINT)
    assert_interrupted(process, "")


def test_a_second_sigterm_does_not_cut_the_cleaning_short():
    """Whoever ends a group of processes may send one to each and one more."""
    twice = "signal.raise_signal(signal.SIGTERM); signal.raise_signal(signal.SIGTERM); print('clean')"
    process = start_guarded(work="signal.raise_signal(signal.SIGTERM)", cleaning=twice)
    assert_interrupted(process, "ready\nstopping\nclean\n")


def test_two_end_it_where_no_handler_can_run():
    process = start_guarded(work=BUSY, cleaning=BUSY)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:  # two that come before the first is noted are one
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert_interrupted(process, "", "stopping\n")  # the first may come just before handlers cannot run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_there_is_anything_to_stop_one_ends_it_at_once(number: signal.Signals):
    process = start_guarded(before=f"print('starting', flush=True)\n{BUSY}")
    assert process.stdout is not None
    assert process.stdout.readline() == "starting\n"
    process.send_signal(number)
    assert_interrupted(process, "")


def test_an_interrupt_that_cannot_be_raised_leaves_no_traceback_and_is_raised_by_the_next_look():
    work = """class Gone:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)
        Gone()
        print("dropped")
        signals.check()"""
    assert_interrupted(start_guarded(work=work), "ready\ndropped\nstopping\n")


def test_the_driver_ends_with_an_interrupt_that_was_dropped_in_its_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The actors here never take a shard, so without a look at what was noted the driver would wait for ever."""
    rounds: list[int] = []

    class Pool:
        actors: ClassVar[list[object]] = []
        slots = 0
        fatal_error = None

        def __init__(self, *given: object) -> None:
            self.inbox: Queue[object] = Queue()

        def reconcile(self) -> None:
            assert not rounds, "the interrupt is lost"
            rounds.append(1)
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

        def handle_replies(self, seconds: float) -> None:
            pass

        def kill_all(self) -> None:
            rounds.append(2)

    monkeypatch.setattr(pipeline.distributed.driver, "ActorPool", Pool)
    monkeypatch.setattr(pipeline.distributed.driver, "connect", lambda cluster: None)
    monkeypatch.setattr(pipeline.distributed.driver, "live_nodes", dict)
    with pytest.raises(KeyboardInterrupt):
        pipeline.distributed.driver.run(demo_config(tmp_path / "codes"))
    assert rounds == [1, 2]
