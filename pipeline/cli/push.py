"""Upload OUTPUT, local or in an object store, to the dataset repo REPO of the Hugging Face hub.

  moss-tok push out/demo me/demo-codes --dry-run     what would be sent; needs neither network nor token
  HF_TOKEN=... moss-tok push out/demo me/demo-codes

The repo is created if it does not exist, private unless --public is given. Files that it has already are not sent
again: after an interruption the same command continues. Rows and the plan name every source, so look at the columns
source and metadata before you make a repo public. The token is read from the environment only, and never printed.
"""

from __future__ import annotations

import argparse
import sys

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

HELP = "upload an output to the Hugging Face hub"
SHOWN = 20  # files by name


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME of the dataset repo")
    parser.add_argument("--public", action="store_true", help="make a new repo public (default: private)")
    parser.add_argument("--incomplete", action="store_true", help="push what is committed of an unfinished output")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent; send nothing")


def run(arguments: argparse.Namespace) -> int:
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from tqdm import tqdm

    from pipeline.cli.printing import warn_untrained
    from pipeline.dataset.dataset import read_output
    from pipeline.export.hub import FOLDER_FILES, check_repo, crowded, hub_token, plan_push, push
    from pipeline.formatting import format_bytes

    check_repo(arguments.repo)
    output = read_output(arguments.output)
    plan = plan_push(output, arguments.incomplete)
    total = f"{len(plan.sizes):,} files, {format_bytes(plan.size)}"
    if arguments.dry_run:
        for path, size in list(plan.sizes.items())[:SHOWN]:
            print(f"  {format_bytes(size):>9}  {path}")
        if len(plan.sizes) > SHOWN:
            print(f"  and {len(plan.sizes) - SHOWN:,} more")
        print(f"{total} to {arguments.repo}, {'public' if arguments.public else 'private'}")
        for path, why in list(plan.left_out.items())[:SHOWN]:
            print(f"  left out: {path}: {why}")
        if len(plan.left_out) > SHOWN:
            print(f"  left out: {len(plan.left_out) - SHOWN:,} more")
        for folder, count in crowded(plan).items():
            print(f"  too many files for the hub in {folder}: {count:,}, and {FOLDER_FILES:,} are allowed")
        warn_untrained(output.record)
        return ExitStatus.DONE
    hub_token()  # fails at once without a token
    disable_progress_bars()  # the hub's client shows one for each batch
    counts = {True: 0, False: 0}
    with tqdm(total=plan.size, unit="B", unit_scale=True, desc="pushing", file=sys.stderr) as bar:

        def sent(path: str, needed: bool) -> None:
            counts[needed] += 1
            bar.update(plan.sizes[path])

        address = push(output, plan, arguments.repo, arguments.public, sent)
    print(f"{address}: {counts[True]:,} files sent, {counts[False]:,} existed already")
    warn_untrained(output.record)
    return ExitStatus.DONE
