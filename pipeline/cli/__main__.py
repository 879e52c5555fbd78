"""`moss-tok`, also as `python -m pipeline.cli`: guards the process against interrupts, then imports the command."""

import sys
from collections.abc import Sequence

from pipeline import signals


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command in a process of its own; returns the exit status."""
    signals.guard()
    from pipeline.cli.main import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(run())
