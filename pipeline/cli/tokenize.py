"""Tokenize the dataset that CONFIG names, with Ray, into an output folder.

Any key of the configuration can be set on the command line as section.key=value, with a YAML value:

  moss-tok tokenize configs/librispeech.yaml output.uri=s3://bucket/codes model.dtype=bfloat16
  moss-tok tokenize configs/demo.yaml 'input.splits.train=[a.tar, b.tar]' cluster.actors=2

The same command again does only the shards that are not committed. Exit status: 0 every shard is committed, 1 some
shards failed or the run stopped early and says why, 2 the configuration cannot be used, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex

from pipeline import logs
from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_config

logger = logging.getLogger(__name__)

HELP = "tokenize a dataset, or resume"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.printing import describe_failures, print_dataset
    from pipeline.config import load_config
    from pipeline.formatting import format_seconds

    config = load_config(arguments.config, arguments.overrides)
    again = shlex.join(["moss-tok", "tokenize", arguments.config, *arguments.overrides])
    logs.configure(config.run.log_format, process="driver", pid=os.getpid())
    logger.info("%s -> %s", arguments.config, config.output.uri, extra=logs.plain())
    try:
        from pipeline.distributed.driver import run_all  # takes seconds, so the configuration is checked first

        summaries = run_all(config)
    except KeyboardInterrupt:
        logger.warning("\nInterrupted. Committed shards are kept. To resume: %s", again, extra=logs.plain())
        return ExitStatus.INTERRUPTED
    for summary in summaries:
        speed = summary.this_run.audio_seconds / max(summary.wall_seconds, 1e-9)
        timing = {f"{stage} time": format_seconds(seconds) for stage, seconds in summary.this_run.seconds.items()}
        if summary.this_run.shards:
            timing["wall time"] = f"{format_seconds(summary.wall_seconds)}, {speed:,.1f}x real time"
        print_dataset(summary.output, summary.totals, timing)
        missing = sum(summary.totals.rejects_by_reason[reason] for reason in config.run.retry_rejects)
        if missing:
            line = f"\nClips whose files are missing or out of reach: {missing:,}. To look for them again: {again}"
            logger.info("%s", line, extra=logs.plain())
        if summary.failures:
            failed = describe_failures(summary.failures)
            logger.error("\n%s\nTo retry them: %s", failed, again, extra=logs.plain())
    stopped = summaries[0].stopped
    if stopped:
        logger.error("\nStopped: %s\nTo resume: %s", stopped, again, extra=logs.plain())
    return ExitStatus.FAILED if stopped or any(summary.failures for summary in summaries) else ExitStatus.DONE
