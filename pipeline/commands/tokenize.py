"""Tokenize everything that CONFIG names, with Ray, into an output folder.

Any key of the configuration can be set on the command line, as section.key=value with a YAML value:

  moss-tok tokenize configs/librispeech.yaml output.uri=s3://bucket/codes model.dtype=bfloat16
  moss-tok tokenize configs/demo.yaml 'input.splits.train=[a.tar, b.tar]' cluster.actors=2

The same command again does only the shards that are not committed. Exit status: 0 every shard is committed, 1 some
failed or too many clips were rejected, 2 the configuration cannot be used, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from pipeline.commands.options import add_config
from pipeline.exit_status import ExitStatus

HELP = "make a dataset of codes, or go on with one"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.commands.printing import print_dataset
    from pipeline.config import load_config
    from pipeline.failures import describe_failures
    from pipeline.totals import format_seconds

    config = load_config(arguments.config, arguments.overrides)
    again = shlex.join(["moss-tok", "tokenize", arguments.config, *arguments.overrides])
    print(f"{arguments.config} -> {config.output.uri}", file=sys.stderr, flush=True)
    try:
        from pipeline.run import run as run_config  # takes seconds, so the configuration is checked first

        summary = run_config(config)
    except KeyboardInterrupt:
        print(f"\nInterrupted. Committed shards stay; to go on: {again}", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    speed = summary.this_run.audio_seconds / max(summary.wall_seconds, 1e-9)
    timing = {f"{stage} time": format_seconds(seconds) for stage, seconds in summary.this_run.seconds.items()}
    if summary.this_run.shards:
        timing["wall time"] = f"{format_seconds(summary.wall_seconds)}, {speed:,.1f}x real time"
    print_dataset(summary.output, summary.totals, timing)
    if summary.failures:
        print(f"\n{describe_failures(summary.failures)}\nTo try them again: {again}", file=sys.stderr)
    if summary.stopped:
        print(f"\nStopped: {summary.stopped}\nTo go on: {again}", file=sys.stderr)
    return ExitStatus.FAILED if summary.failures or summary.stopped else ExitStatus.DONE
