"""Encode files in float32 and in another precision, and compare codes and sound.

Prints the share of equal codes in each layer, how far the two sounds are from each other, and how far each is from the
original. It is `moss-tok evaluate FILES --model M --model M,dtype=bfloat16 --metrics mel stft`, without a folder of
results.
"""

from __future__ import annotations

import argparse
from tempfile import TemporaryDirectory

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_model

HELP = "measure how another precision changes the codes"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="AUDIO", help="audio files")
    add_model(parser, dtype="bfloat16")


def run(arguments: argparse.Namespace) -> int:
    from pipeline import storage
    from pipeline.codecs import find_codec
    from pipeline.evaluate.config import load_evaluate_config
    from pipeline.evaluate.evaluation import in_this_process, open_evaluation, read_results, run_evaluation
    from pipeline.evaluate.table import markdown, table_rows
    from pipeline.steps.encode import device_of

    model = {"name": arguments.model, "revision": arguments.revision, "codec": arguments.codec}
    description = find_codec(arguments.model, arguments.revision, arguments.codec).description
    layers = len(description.first(arguments.num_quantizers, arguments.model))
    with TemporaryDirectory() as folder:
        given = {
            "input": {"splits": {"test": [storage.absolute(uri) for uri in arguments.files]}, "format": "files"},
            "models": [model | {"dtype": dtype} for dtype in ("float32", arguments.dtype)],
            "evaluate": {"uri": folder, "metrics": ["mel", "stft"], "num_quantizers": [layers]},
        }
        evaluation = open_evaluation(load_evaluate_config(None, [], given), device_of("auto"))
        summary = run_evaluation(evaluation, in_this_process, lambda done, total: None)
        for row in read_results(evaluation).select(["source", "reject_reason"]).to_pylist():
            if row["reject_reason"] is not None:
                raise ValueError(f"{row['source']}: {row['reject_reason']}: give files that can be decoded")
    print(markdown(summary, table_rows(summary, evaluation.work.subjects, None), evaluation.work.metrics), end="")
    return ExitStatus.DONE
