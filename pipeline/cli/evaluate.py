"""Measure how well codecs keep sound: STOI, PESQ, mel and STFT distance, and more, at any number of quantizers.

  moss-tok evaluate demo/corpus/folder/librivox --model cat-speech -o out/evaluation
  moss-tok evaluate 's3://bucket/test-clean/**.flac' --model A --model B,dtype=bfloat16 -q 8 16 32 -o out/evaluation
  moss-tok evaluate out/demo -o out/evaluation              an output of codes, on the sources that it was made of
  moss-tok evaluate out/demo --model cat-speech -o out/evaluation      its codes against those of this machine
  moss-tok evaluate --config configs/evaluate_librispeech.yaml

Writes data/ (the values of each clip, as Parquet), results.json, table.md and index.html. A clip for which a metric has
no value, such as silence, is counted with the reason and is in no mean. The same command again goes on with the shards
that are left. The metrics need the packages of the extra `evaluate`; docs/evaluate.md says what each one costs.

Exit status: 0 every shard is measured, 1 no clip could be, 2 the evaluation cannot be made, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pipeline.cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from pipeline.evaluate.config import EvaluateConfig
    from pipeline.evaluate.evaluation import Map

HELP = "measure how well a codec keeps sound"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="audio files, folders, globs or input lists; or outputs of codes"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME[,key=value]",
        help="a codec, such as cat-speech or kyutai/mimi,dtype=float32; may be repeated",
    )  # fmt: skip
    parser.add_argument("-q", "--num-quantizers", nargs="+", type=int, metavar="K", help="numbers of quantizers")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="default: stoi pesq_nb pesq_wb mel stft si_sdr")
    parser.add_argument("--workers", metavar="N", help="processes that measure, or ray for a cluster (default: one)")
    parser.add_argument("-o", "--out", metavar="DIR", help="folder or URI of the results")
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file to begin with, such as configs/evaluate_librispeech.yaml"
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="section.key=value",
                        help="set keys of the configuration")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import Bar
    from pipeline.evaluate.config import load_evaluate_config

    if arguments.out is None and arguments.config is None:
        raise ValueError("name a folder for the results with --out")
    config = load_evaluate_config(arguments.config, arguments.set, _given(arguments))

    # These import torch, which takes seconds, so the configuration is checked first.
    from pipeline.evaluate.evaluation import open_evaluation, run_evaluation
    from pipeline.evaluate.publish import publish_results
    from pipeline.steps.encode import device_of

    device = device_of("auto")
    evaluation = open_evaluation(config, device)
    with Bar() as bar:
        summary = run_evaluation(
            evaluation, _runner(config, device), lambda done, total: bar.show("shards", done, total)
        )
    print(publish_results(evaluation, summary))
    if sum(summary.rejects.values()) < summary.clips:
        return ExitStatus.DONE
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary.rejects.items())
    print(f"moss-tok: no clip could be measured: {reasons or 'the input has none'}", file=sys.stderr)
    return ExitStatus.FAILED


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sections that the command line sets. Inputs that are outputs of codes are a dataset."""
    from pipeline import storage

    given: dict[str, Any] = {}
    evaluate = {
        "uri": arguments.out,
        "num_quantizers": arguments.num_quantizers,
        "metrics": arguments.metrics,
        "workers": _workers(arguments.workers),
    }
    given["evaluate"] = {key: value for key, value in evaluate.items() if value is not None}
    if arguments.model:
        given["models"] = [_model(text) for text in arguments.model]
    if not arguments.inputs:
        return given
    outputs = [uri for uri in arguments.inputs if "_moss_tok" in storage.list_names(uri)]
    if outputs and outputs != arguments.inputs:
        raise ValueError(f"{outputs[0]} is an output of codes: give audio, or outputs alone")
    if outputs:
        return given | {"dataset": outputs}
    inputs = [storage.absolute(uri) for uri in arguments.inputs]
    return given | {"input": {"splits": {"test": inputs}}}


def _workers(text: str | None) -> int | str | None:
    if text is None or not text.isdecimal():
        return text
    return int(text)


def _model(text: str) -> dict[str, str]:
    name, *options = text.split(",")
    pairs = [option.partition("=") for option in options]
    if not name or not all(equals and key for key, equals, _ in pairs):
        raise ValueError(f"--model {text}: give a name, and options as key=value: kyutai/mimi,dtype=float32")
    return {"name": name, **{key: value for key, _, value in pairs}}


def _runner(config: EvaluateConfig, device: str) -> Map:
    """How tasks run: in this process, in some of this machine, or on a cluster."""
    from pipeline.evaluate.evaluation import in_processes, in_this_process

    workers = config.evaluate.workers
    if workers == "ray":
        from pipeline.config import ClusterConfig
        from pipeline.distributed.map_tasks import map_on_ray

        return lambda function, tasks: map_on_ray(function, tasks, ClusterConfig(), gpu=device == "cuda")
    if workers in ("auto", 1):
        return in_this_process
    return lambda function, tasks: in_processes(function, tasks, int(workers))
