"""A watchdog for a decoder that never returns.

Python can interrupt its own code, but not a loop inside a C library that holds the interpreter's lock. A timer of the
kernel can: it raises SIGALRM, and then the process writes its stack to its error output and ends. Setting the timer
costs a microsecond; `faulthandler.dump_traceback_later` starts a thread each time, which took a third of the time of
reading short clips.
"""

from __future__ import annotations

import faulthandler
import signal


class Watchdog:
    """Ends this process if `seconds` pass without a `restart`. With None it never does."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        if seconds is not None:
            faulthandler.register(
                signal.SIGALRM, all_threads=True, chain=True
            )  # the default handler follows: the process ends

    def restart(self) -> None:
        """Start counting the seconds again."""
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def stop(self) -> None:
        """Stop counting until the next `restart`."""
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)


NO_WATCHDOG = Watchdog()
