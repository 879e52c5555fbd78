"""An end for a decoder that never comes back.

Python can interrupt its own code, but not a loop inside a C library that holds the interpreter's lock. The kernel can:
its timer raises SIGALRM, at which the process writes where it stands to its error output, and ends. To set the timer
costs a microsecond; `faulthandler.dump_traceback_later`, which starts a thread each time, took a third of the time of
reading short clips.
"""

from __future__ import annotations

import faulthandler
import signal


class Watchdog:
    """Ends this process where `seconds` pass between two signs of life. None: it never does."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        if seconds is not None:
            faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)  # on to the default: the process ends

    def restart(self) -> None:
        """A sign of life; from here on the seconds are counted anew."""
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def stop(self) -> None:
        """Wait for nothing until the next `restart`."""
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)


NO_WATCHDOG = Watchdog()
