"""Mend OUTPUT, without reading any audio, when no run is working on it.

  moss-tok repair out/demo                 manifests that are lost or damaged, objects that are gone or cut
  moss-tok repair s3://bucket/codes --read every object is read and hashed as well
  moss-tok repair out/demo --force         the run that seems to be at work is dead, for certain

A manifest is made again from the objects that it counts. A shard whose objects are damaged is undone: they are deleted,
and `moss-tok tokenize` does that shard again, and it alone. `moss-tok verify` finds more, and changes nothing. Exit
status: 0 all is right now, 1 some shards have to be done again, 2 it cannot be mended.
"""

from __future__ import annotations

import argparse
import json

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

HELP = "make lost manifests again, undo damaged shards"


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--read", action="store_true", help="read and hash every object, not only their sizes")
    parser.add_argument("--force", action="store_true", help="even if a run has moved in the last minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline.verify.repair import repair

    repairs = repair(arguments.output, arguments.read, arguments.force)
    if arguments.json:
        print(json.dumps(asdict(repairs), indent=1))
    else:
        for shard_id, reason in repairs.rebuilt.items():
            print(f"shard {shard_id}: its manifest was made again: {reason}")
        for shard_id, reason in repairs.undone.items():
            print(f"shard {shard_id}: undone: {reason}")
        print(
            f"{repairs.shards:,} shards: {repairs.sound:,} sound, {len(repairs.rebuilt):,} with new manifests, "
            f"{len(repairs.undone):,} undone, {repairs.missing:,} not done yet"
        )
        if not arguments.read:
            print("objects were looked at by size alone: --read hashes them, and finds flipped bits")
        if repairs.rebuilt or repairs.undone:
            print("the command that made the output does what is left, and writes the card and _SUCCESS again")
    return ExitStatus.FAILED if repairs.undone else ExitStatus.DONE
