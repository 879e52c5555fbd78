"""Write one HTML page about OUTPUT: figures, plots, rejects, and a few clips to look at and listen to.

The page contains its pictures and sounds, runs no script and loads nothing from a network. The command works while a
run is at work, after it died, and for an output of any size: figures about codes come from a sample.

  moss-tok report out/demo                             report.html, with 4 clips
  moss-tok report s3://bucket/codes --clips 0          without clips, which needs no weights of the model
  moss-tok report out/demo -o s3://bucket/report.html  the page can be anywhere
"""

from __future__ import annotations

import argparse

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

HELP = "make a page to look at and listen to"

MAX_CLIPS = 24  # each is about a megabyte of the page


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("-o", "--out", default="report.html", metavar="FILE", help="the page (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=4, metavar="N", help="clips to show (default: %(default)s)")
    parser.add_argument(
        "--where", metavar="CONDITION", help="only rows of which it holds, such as 'duration > 2 and snr > 15'"
    )
    parser.add_argument("--model", help="folder, hub repo or embedded model, if it is not where the dataset says")


def run(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.clips <= MAX_CLIPS:
        raise ValueError(f"--clips {arguments.clips}: 0 to {MAX_CLIPS} clips can be shown")
    if not arguments.out.lower().endswith((".html", ".htm")):
        raise ValueError(f"{arguments.out}: the name of the page must end in .html")

    from pipeline import storage
    from pipeline.cli.printing import warn_untrained
    from pipeline.codecs import Codec
    from pipeline.dataset.dataset import read_output
    from pipeline.dataset.expression import Chosen
    from pipeline.formatting import format_bytes
    from pipeline.loading.decode import load_decoder
    from pipeline.report.gather import gather
    from pipeline.report.page import render

    output = read_output(arguments.output)

    def decoder() -> Codec:
        return load_decoder(output.record, arguments.model)

    chosen = Chosen(arguments.where, output.record.value_columns).checked() if arguments.where else None
    page = render(gather(output, arguments.clips, decoder, chosen))
    storage.publish(storage.absolute(arguments.out), page)
    warn_untrained(output.record)
    print(f"{arguments.out}: {format_bytes(len(page))}; open it in a browser")
    return ExitStatus.DONE
