"""An interrupt whose exception was dropped on the way still ends the run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from pipeline import interrupt


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    with interrupt.listening():
        yield
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_was_dropped_is_raised_again_once(number: signal.Signals):
    interrupt.check()
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(number)
        pytest.fail("the first one interrupts at once")
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()
    interrupt.check()


def test_an_interrupt_is_noted_though_another_has_taken_the_handler():
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()


def test_a_second_command_in_a_process_does_not_inherit_the_interrupts_of_the_first():
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with interrupt.listening():
        interrupt.check()


def test_other_signals_interrupt_nothing():
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        signal.raise_signal(signal.SIGUSR1)
        interrupt.check()
    finally:
        signal.signal(signal.SIGUSR1, before)
