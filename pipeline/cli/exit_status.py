"""Exit statuses of `moss-tok`."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the exit status tells a script."""

    DONE = 0
    FAILED = 1
    """The command ran to its end, but some shards or clips failed."""
    USAGE = 2
    """The command cannot do what was asked for, and has begun nothing."""
    INTERRUPTED = 130
