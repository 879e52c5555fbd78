"""SIGINT and SIGTERM as one thing: somebody wants the training to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interrupts_handled_by(handler: Callable[..., object]) -> Iterator[None]:
    """Both signals call `handler`, in the background as well, where a shell has SIGINT ignored."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
