"""Repair OUTPUT without reading any audio. No run may be working on it.

  moss-tok repair out/demo                  find lost and damaged manifests, lost and shortened objects
  moss-tok repair s3://bucket/codes --read  also read and hash every object
  moss-tok repair out/demo --force          even if a run seems to be at work: you know that it is dead

A lost or damaged manifest is rebuilt from the objects of its shard. A shard with lost or damaged objects is undone: its
objects are deleted, and `moss-tok tokenize` then does only that shard again. `moss-tok verify` finds more faults, and
changes nothing. Exit status: 0 the output is sound now, 1 some shards must be done again, 2 it cannot be repaired.
"""

from __future__ import annotations

import argparse
import json

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

HELP = "rebuild lost manifests, remove damaged shards"


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument(
        "--read", action="store_true", help="read and hash every object, instead of only comparing sizes"
    )
    parser.add_argument(
        "--force", action="store_true", help="repair even if a run wrote its heartbeat in the last minute"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline.verify.repair import repair

    repairs = repair(arguments.output, arguments.read, arguments.force)
    if arguments.json:
        print(json.dumps(asdict(repairs), indent=1))
    else:
        for uri in repairs.restored:
            print(f"{uri}: made again")
        for shard_id, reason in repairs.rebuilt.items():
            print(f"shard {shard_id}: its manifest was rebuilt: {reason}")
        for shard_id, reason in repairs.undone.items():
            print(f"shard {shard_id}: undone: {reason}")
        print(
            f"{repairs.shards:,} shards: {repairs.sound:,} sound, {len(repairs.rebuilt):,} with new manifests, "
            f"{len(repairs.undone):,} undone, {repairs.missing:,} not done yet"
        )
        if not arguments.read:
            print("only sizes of objects were compared: --read also hashes them and finds flipped bits")
        if repairs.restored or repairs.rebuilt or repairs.undone:
            print("run the command that made the output again: it does what is left and writes the card and _SUCCESS")
    return ExitStatus.FAILED if repairs.undone else ExitStatus.DONE
