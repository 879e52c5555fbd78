"""List the clips of OUTPUT whose waveforms are equal sample by sample. Their hashes are compared; no audio is read.

  moss-tok duplicates out/demo                      how many there are, and the largest groups
  moss-tok duplicates out/demo -o duplicates.jsonl  every clip that has a copy: group, keep or drop, id, source, key
  moss-tok duplicates out/demo -o drop.txt          the ids to drop, to leave out of an export

In each group the clip with the first id is kept. Waveforms are compared after decoding, mixing and resampling, so a
recording in a lossless and in a lossy format is not found. The output is not changed.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

if TYPE_CHECKING:
    from pipeline.verify.duplicates import Duplicates

HELP = "list the clips that are copies of others"
SHOWN = 10  # groups
SHOWN_CLIPS = 5  # of a group


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("-o", "--out", metavar="FILE", help="write the listing: .jsonl, .parquet or .txt")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from pipeline import storage
    from pipeline.cli.progress_bar import Bar
    from pipeline.dataset.dataset import read_output
    from pipeline.verify.duplicates import check_listing_name, find_duplicates, listing_bytes

    if arguments.out:
        check_listing_name(arguments.out)
    output = read_output(arguments.output)
    with Bar() as bar:
        duplicates = find_duplicates(output, advance=bar.show)
    if arguments.out:
        storage.publish(storage.absolute(arguments.out), listing_bytes(duplicates, arguments.out))
    if arguments.json:
        print(json.dumps(_figures(duplicates), indent=1))
    else:
        _print(arguments.output, duplicates, arguments.out)
    return ExitStatus.DONE


def _figures(duplicates: Duplicates) -> dict[str, float]:
    return {
        "clips": duplicates.rows,
        "groups": duplicates.groups,
        "to_drop": duplicates.to_drop,
        "wasted_seconds": duplicates.wasted_seconds,
    }


def _print(uri: str, duplicates: Duplicates, out: str | None) -> None:
    hours = duplicates.wasted_seconds / 3600
    print(f"{uri}: {duplicates.to_drop:,} of {duplicates.rows:,} clips are copies of others, {hours:,.3f} hours")
    shown = next(duplicates.batches(), [])
    for group in range(min(SHOWN, duplicates.groups)):
        clips = [row for row in shown if row["group"] == group]
        if not clips:
            break  # larger groups have filled the first batch
        print(f"\n{clips[0]['copies']:,} x {clips[0]['duration']:.2f} s, {clips[0]['audio_xxh3']}")
        for row in clips[:SHOWN_CLIPS]:
            print(f"  {row['action']}  {row['id']}  {row['key']}  {row['source']}")
        if len(clips) > SHOWN_CLIPS:
            print(f"  and {clips[0]['copies'] - SHOWN_CLIPS:,} more")
    if duplicates.groups > SHOWN:
        print(f"\nand {duplicates.groups - SHOWN:,} more groups" + ("" if out else ": -o FILE lists them"))
    if out:
        print(f"\n{out} has the listing")
