"""An end for a decoder that never comes back.

Python can interrupt its own code, but not a loop inside a C library that holds the interpreter's lock. `faulthandler`
has a thread that needs no lock: it writes where the process stands to its error output, and ends it.
"""

from __future__ import annotations

import faulthandler


class Watchdog:
    """Ends this process where `seconds` pass between two signs of life. None: it never does."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds

    def restart(self) -> None:
        """A sign of life; from here on the seconds are counted anew."""
        if self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True)

    def stop(self) -> None:
        """Wait for nothing until the next `restart`."""
        if self._seconds is not None:
            faulthandler.cancel_dump_traceback_later()
