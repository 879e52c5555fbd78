"""An interrupt whose exception was dropped on the way still ends the run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import ClassVar

import pytest

import pipeline.distributed.driver
from pipeline import signals
from tests.support import demo_config


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


def test_the_driver_ends_with_an_interrupt_that_was_dropped_in_its_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The actors here never take a shard, so without a look at what was noted the driver would wait for ever."""
    rounds: list[int] = []

    class Replicas:
        all: ClassVar[list[object]] = []
        places = 0
        lost = None

        def __init__(self, *given: object) -> None:
            self.inbox: Queue[object] = Queue()

        def follow(self) -> None:
            assert not rounds, "the interrupt is lost"
            rounds.append(1)
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

        def end(self) -> None:
            rounds.append(2)

    monkeypatch.setattr(pipeline.distributed.driver, "Replicas", Replicas)
    monkeypatch.setattr(pipeline.distributed.driver, "connect", lambda cluster: None)
    monkeypatch.setattr(pipeline.distributed.driver, "live_nodes", dict)
    with pytest.raises(KeyboardInterrupt):
        pipeline.distributed.driver.run(demo_config(tmp_path / "codes"))
    assert rounds == [1, 2]
