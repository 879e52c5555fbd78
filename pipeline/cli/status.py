"""Show how far OUTPUT is: shards by state, hours, speed, time left, retries, rejects by reason, and the runs on it.

Only OUTPUT is read, so the command works beside a run, after the run died, and from any machine with access to it:

  moss-tok status s3://bucket/codes
  moss-tok status out/demo --watch 5            look again every five seconds, until it is complete
  moss-tok status out/demo --json               one JSON object (with --watch, one on a line for each look)

Every ten seconds a run writes a heartbeat below _moss_tok/runs/. A run without a heartbeat for a minute is shown as
silent: it is dead, stopped, or cut off from the store. To resume, give the same `tokenize` command again: it does the
shards that are not committed.

Exit status: 0, and 2 if there is no output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

HELP = "show how far an output is, and which runs work on it"


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    again = "repeat every so many seconds (default: 10) until the output is complete"
    parser.add_argument("--watch", type=float, nargs="?", const=10.0, metavar="SECONDS", help=again)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.formatting import lines_of
    from pipeline.monitoring.status import SHOWN_FAILURES, Observer, Status

    def show(status: Status) -> None:
        if arguments.json:
            print(json.dumps(status.to_json(), indent=None if arguments.watch else 1), flush=True)
            return
        if arguments.watch and sys.stdout.isatty():
            print("\033[H\033[J", end="")  # clear the screen
        print(f"{status.output.layout.root}: {'complete' if status.complete else 'not complete'}")
        print(lines_of(status.lines()))
        failures = {shard: reason for beat in status.last for shard, reason in beat.failures.items()}
        if failures and not status.complete:
            print("given up by the last run:")
            print(lines_of(dict(list(failures.items())[:SHOWN_FAILURES])), flush=True)

    if arguments.watch is not None and not arguments.watch > 0:
        raise ValueError(f"--watch {arguments.watch:g}: give a number of seconds above 0")
    observer = Observer(arguments.output)
    show(status := observer.look())
    while arguments.watch and not status.complete:
        time.sleep(arguments.watch)
        show(status := observer.look())
    return ExitStatus.DONE
