"""Check OUTPUT: every object against its checksum, rows against each other, and a sample of clips encoded again.

  moss-tok verify out/demo                 check everything that is stored, and encode 20 clips again
  moss-tok verify s3://bucket/codes --all  encode every clip again: takes as long as tokenizing
  moss-tok verify out/demo --sample 0      check only what is stored: needs neither sources nor codec

Nothing is changed. Clips that are encoded again must give exactly the same codes, lengths and hashes. Only those are
encoded that were made on a machine of this kind: the others are counted, with the reason.

Exit status: 0 everything is right, 1 something differs, 2 it could not be checked.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

if TYPE_CHECKING:
    from pipeline.verify import Difference, Findings

HELP = "check an output against its checksums and its sources"
SHOWN = 20  # differences that are printed


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument(
        "--sample", type=int, default=20, metavar="N", help="clips to encode again (default: %(default)s)"
    )
    parser.add_argument("--all", action="store_true", help="encode every clip again")
    parser.add_argument(
        "--seed", type=int, default=0, help="chooses which clips are encoded again (default: %(default)s)"
    )
    parser.add_argument("--model", help="folder, hub repo or embedded model, if it is not where the dataset says")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import Bar
    from pipeline.verify import verify

    if arguments.sample < 0:
        raise ValueError(f"--sample {arguments.sample}: give 0 or more")
    sample = None if arguments.all else arguments.sample
    with Bar() as bar:
        findings = verify(arguments.output, sample, arguments.seed, arguments.model, bar.show)
    if arguments.json:
        print(json.dumps(findings.as_json(), indent=1))
    else:
        _print(arguments.output, findings)
    return ExitStatus.FAILED if findings.wrong else ExitStatus.DONE


def _print(uri: str, findings: Findings) -> None:
    from pipeline.verify import CHECKS

    print(f"{uri}\n")
    print(f"  {'check':<14} {'checked':>10} {'wrong':>6}")
    for check, tally in findings.tallies.items():
        meaning = CHECKS[check] if tally.looked else "not checked"
        print(f"  {check:<14} {tally.looked:>10,} {tally.wrong or '-':>6}  {meaning}")
    for obstacle, count in sorted(findings.unchecked.items()):
        print(f"\nnot encoded again: {count:,} clips: {obstacle}")
    if not findings.wrong:
        print(f"\neverything {'that could be checked ' * bool(findings.unchecked)}is right")
        return
    for number, difference in enumerate(findings.differences[:SHOWN], 1):
        print(f"\n{number}. {_describe(difference)}")
    more = findings.wrong - min(SHOWN, len(findings.differences))
    print(f"\n{findings.wrong:,} differences" + (f"; the first {SHOWN} are shown" if more > 0 else ""))
    if more > 0:
        print("--json prints up to 1,000 of them", file=sys.stderr)


def _describe(difference: Difference) -> str:
    place = {"shard": difference.shard_id, "id": difference.clip_id, "column": difference.column}
    named = ", ".join(f"{name} {value}" for name, value in place.items() if value)
    lines = [f"{difference.check}: {difference.message}", difference.uri, *([named] if named else [])]
    return "\n   ".join([*lines, f"-> {difference.remedy}"])
