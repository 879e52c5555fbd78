"""How a command of `moss-tok` ends."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a script can tell from the exit status."""

    DONE = 0
    FAILED = 1
    """It ran to its end, and some shards or clips did not make it."""
    USAGE = 2
    """What was asked for cannot be done; nothing was begun."""
    INTERRUPTED = 130
