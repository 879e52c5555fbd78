"""Show the shards that `tokenize CONFIG` would make; estimate hours, codes and output size from a sample of the clips.

Nothing is written.
"""

from __future__ import annotations

import argparse
from collections import Counter

from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_config

HELP = "show what tokenize would do"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    from pipeline import storage
    from pipeline.cli.printing import left_out
    from pipeline.config import load_config
    from pipeline.dataset.opening import gpu_here
    from pipeline.dataset.output_folder import check_output_folder
    from pipeline.dataset.provenance import record_run
    from pipeline.formatting import format_bytes, lines_of
    from pipeline.shard.estimate import estimate
    from pipeline.shard.tokenize import target_of
    from pipeline.steps.plan import plan_shards

    config = load_config(arguments.config, arguments.overrides)
    configs = config.of_each_model()
    for each in configs:
        check_output_folder(each)
    records = [record_run(each, gpu_here(each)) for each in configs]
    unreadable: list[storage.StorageError] = []
    specs = plan_shards(config.input, unreadable.append)
    kinds = Counter(f"{spec.split}, {spec.format}" for spec in specs)
    for each, record in zip(configs, records, strict=True):
        guess = estimate(specs, each, target_of(record), record.codebooks)
        print(f"{arguments.config} would write to {storage.absolute(each.output.uri)}:")
        print(
            lines_of(
                {
                    "model": record.model.name,
                    **{f"shards ({kind})": f"{count:,}" for kind, count in kinds.items()},
                    "input": format_bytes(sum(spec.size for spec in specs)),
                    **left_out(len(unreadable)),
                    "sampled": f"{guess.clips} clips, {guess.rejects} of them rejected",
                    "hours": f"about {guess.hours:,.3f}",
                    "codes": f"about {guess.codes:,.0f}",
                    "output": f"about {format_bytes(guess.output_bytes)}",
                }
            )
        )
    return ExitStatus.DONE
