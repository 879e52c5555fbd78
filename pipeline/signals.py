"""Interrupts that do not get lost, and that never end in a traceback.

Python raises KeyboardInterrupt wherever the main thread happens to be. While Ray starts its processes, that may be in a
hook of `fork`, whose exceptions are printed and dropped. Until Ray has started, Ray has its own handler of SIGTERM. So
the interpreter records every signal below the handlers (signal.set_wakeup_fd), and code that runs for long reads the
record with `check`.

A command has its process to itself: `guard` makes the first Ctrl-C stop it cleanly and the second stop it at once. This
module imports only the smallest modules of the standard library, because what runs before `guard` is not guarded.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

EXIT_STATUS = 130
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class _Notes:
    """A record of the signals that came, written by the interpreter."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._lock = threading.Lock()
        self._unseen = False
        self.came = 0
        """Number of interrupts so far."""
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def wait(self) -> None:
        """Wait until a signal comes."""
        select.select([self._read], [], [])

    def look(self) -> None:
        """Read what came since the last call, and do what `guard` promises."""
        with self._lock:
            try:
                numbers = os.read(self._read, 4096)
            except BlockingIOError:
                return
            interrupts = bytes(number for number in numbers if number in _INTERRUPTS)
            self.came += len(interrupts)
            self._unseen |= bool(interrupts)
            if _guarded and interrupts:
                _stop_if_it_must_be_now(interrupts, self.came)

    def take(self) -> bool:
        """Whether an interrupt came since the last call."""
        self.look()
        with self._lock:
            unseen, self._unseen = self._unseen, False
            return unseen


_notes: list[_Notes] = []
"""The signals that came; one object while `listening`, or from `guard` on."""
_guarded = False
_stopping_takes_time = False
"""Whether something is running that an interrupt must stop in order."""
_raised = False


def guard() -> None:
    """Call it in the main thread of a command, first of all. It holds for the rest of the process.

    Outside of `listening` an interrupt ends the process at once, with EXIT_STATUS. Inside, the first interrupt raises
    KeyboardInterrupt in the main thread. A Ctrl-C after that ends the process at once, even if the main thread waits in
    a library that lets no handler run.
    """
    global _guarded
    _guarded = True
    notes = _Notes()
    _notes.append(notes)
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt_once)
    # A child that has not become another program yet would note its signals as ours.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    sys.unraisablehook = _hide_interrupts
    atexit.register(_ignore_interrupts)  # the first to be registered is the last to be called
    threading.Thread(target=_watch, args=(notes,), name="interrupts", daemon=True).start()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """SIGTERM interrupts like Ctrl-C, and both are recorded. Use it in the main thread only."""
    global _stopping_takes_time
    if _guarded:
        _stopping_takes_time = True
        try:
            yield
        finally:
            _stopping_takes_time = False
        return
    notes = _Notes()
    on_sigterm = signal.signal(signal.SIGTERM, _interrupt)
    _notes.append(notes)
    try:
        yield
    finally:
        _notes.remove(notes)
        signal.signal(signal.SIGTERM, on_sigterm)
        notes.close()


def check() -> None:
    """Raise KeyboardInterrupt if SIGINT or SIGTERM came since the last call, whether or not one was raised at that
    time."""
    if _notes and _notes[-1].take():
        raise KeyboardInterrupt


def interrupted() -> bool:
    """Whether this command was interrupted. An error that is raised afterwards may be a consequence, whatever its
    type. An interrupt that came within `listening`, and is asked for there, does not end the process afterwards."""
    if not _notes:
        return False
    _notes[-1].look()
    return _notes[-1].came > 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt for the first interrupt only. A second exception would only disturb the cleaning up."""
    global _raised
    if _stopping_takes_time and not _raised:
        _raised = True
        raise KeyboardInterrupt


def _watch(notes: _Notes) -> None:
    while True:
        notes.wait()
        notes.look()


def _stop_if_it_must_be_now(interrupts: bytes, came: int) -> None:
    """End the process without cleaning up. Objects are created whole or not at all, so no output is harmed."""
    if not _stopping_takes_time or (came > 1 and signal.SIGINT in interrupts):
        with contextlib.suppress(OSError):
            os.write(2, b"\ninterrupted\n")
        os._exit(EXIT_STATUS)


def _ignore_interrupts() -> None:
    """Ignore interrupts while the interpreter shuts down: it would restore the handlers that it found, and die by the
    signal."""
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def _hide_interrupts(unraisable: Any) -> None:
    """Print no traceback of an interrupt in a place that cannot raise it. It is recorded, and `check` raises it again.

    Of a SIGTERM, Ray's handler makes a SystemExit.
    """
    if not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
        sys.__unraisablehook__(unraisable)
