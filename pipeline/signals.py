"""Interrupts that do not get lost: what signals came is known, whatever became of the exceptions that they raised.

Python raises KeyboardInterrupt wherever the main thread happens to be. While Ray starts its processes that may be in a
hook of `fork`, whose exceptions are printed and dropped; and until Ray has started, SIGTERM has a handler of Ray's. So
the interpreter notes every signal below the handlers (signal.set_wakeup_fd), and who runs for long looks at the notes.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType

_notes: list[socket.socket] = []  # where they are read; one while `listening`


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does, and both are noted. For the main thread only."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        on_sigterm = signal.signal(signal.SIGTERM, _interrupt)
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        _notes.append(reader)
        try:
            yield
        finally:
            _notes.remove(reader)
            signal.set_wakeup_fd(fd)
            signal.signal(signal.SIGTERM, on_sigterm)


def check() -> None:
    """Raises KeyboardInterrupt if SIGINT or SIGTERM came since the last look, whether or not it did so then."""
    if not _notes:
        return
    try:
        noted = _notes[-1].recv(4096)
    except BlockingIOError:
        return
    if signal.SIGINT in noted or signal.SIGTERM in noted:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
