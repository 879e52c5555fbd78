"""Check OUTPUT: every object against its checksum, every row against the others, and a sample of clips encoded again.

  moss-tok verify out/demo                 everything stored, and 20 clips from their sources
  moss-tok verify s3://bucket/codes --all  every clip again: as long as tokenizing took
  moss-tok verify out/demo --sample 0      what is stored alone: needs neither sources nor codec

Nothing is changed. Clips encoded again must give the same codes, lengths and hashes exactly, which they do on the kind
of hardware and with the versions that made them. Exit status: 0 all is right, 1 something differs, 2 it could not be
checked.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

if TYPE_CHECKING:
    from pipeline.verify import Difference, Report

HELP = "whether an output is whole, and still what its sources give"
SHOWN = 20  # differences in full


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument(
        "--sample", type=int, default=20, metavar="N", help="clips to encode again (default: %(default)s)"
    )
    parser.add_argument("--all", action="store_true", help="encode every clip again")
    parser.add_argument("--seed", type=int, default=0, help="another seed takes other clips (default: %(default)s)")
    parser.add_argument("--model", help="folder, hub repo or embedded model, if not where the dataset says")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import Bar
    from pipeline.verify import verify

    if arguments.sample < 0:
        raise ValueError(f"--sample {arguments.sample}: give 0 or more")
    sample = None if arguments.all else arguments.sample
    with Bar() as bar:
        report = verify(arguments.output, sample, arguments.seed, arguments.model, bar.show)
    if arguments.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        _print(arguments.output, report)
    return ExitStatus.FAILED if report.wrong else ExitStatus.DONE


def _print(uri: str, report: Report) -> None:
    from pipeline.verify import CHECKS

    print(f"{uri}\n")
    print(f"  {'check':<14} {'looked at':>10} {'wrong':>6}")
    for check, tally in report.tallies.items():
        meaning = CHECKS[check] if tally.looked else "not looked at"
        print(f"  {check:<14} {tally.looked:>10,} {tally.wrong or '-':>6}  {meaning}")
    if not report.wrong:
        print("\nall is right")
        return
    for number, difference in enumerate(report.differences[:SHOWN], 1):
        print(f"\n{number}. {_describe(difference)}")
    more = report.wrong - min(SHOWN, len(report.differences))
    print(f"\n{report.wrong:,} differences" + (f", of which the first {SHOWN} are shown" if more > 0 else ""))
    if more > 0:
        print("--json has up to 1,000 of them", file=sys.stderr)


def _describe(difference: Difference) -> str:
    place = {"shard": difference.shard_id, "id": difference.clip_id, "column": difference.column}
    named = ", ".join(f"{name} {value}" for name, value in place.items() if value)
    lines = [f"{difference.check}: {difference.message}", difference.uri, *([named] if named else [])]
    return "\n   ".join([*lines, f"-> {difference.mend}"])
