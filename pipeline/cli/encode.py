"""Tokenize a few files into a small dataset, in this process.

The folder is like any other output: load_dataset reads it, `moss-tok decode` decodes it, and the same command again
resumes. Exit status: 0 every clip has codes, 1 some clips were rejected.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_model

HELP = "tokenize a few files without Ray"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio files, folders or globs")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the new dataset")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    from pipeline import storage
    from pipeline.cli.printing import print_dataset
    from pipeline.config import parse_config
    from pipeline.dataset.manifest import ShardManifest
    from pipeline.dataset.opening import open_output, with_absolute_uris
    from pipeline.dataset.totals import Totals
    from pipeline.monitoring.progress import Progress
    from pipeline.shard.in_process import tokenize_in_process

    document = {
        "input": {"splits": {"train": [storage.absolute(file) for file in arguments.files]}, "format": "auto"},
        "output": {"uri": arguments.output},
        "model": {
            "name": arguments.model,
            "codec": arguments.codec,
            "revision": arguments.revision,
            "dtype": arguments.dtype,
            "num_quantizers": arguments.num_quantizers,
        },
    }
    config = with_absolute_uris(parse_config(document, "moss-tok encode"))
    output = open_output(config)
    made = Totals()
    with Progress(len(output.todo), len(output.done)) as progress:

        def count(manifests: Sequence[ShardManifest]) -> None:
            for manifest in manifests:
                made.add(Totals.of(manifest))
            progress.update(made, made.audio_seconds)

        tokenize_in_process(config, [output], count)
    totals = output.finish()
    print_dataset(output, totals, {})
    return ExitStatus.FAILED if totals.rejects else ExitStatus.DONE
