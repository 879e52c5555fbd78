"""Tokenize AudioSet on the Ray cluster that this job was submitted to.

    ray job submit --working-dir . -- python jobs/tokenize_audioset.py \\
        --train 's3://bucket/audioset/train-*.tar' --eval 's3://bucket/audioset/eval-*.tar' --output s3://bucket/codes

Reads AudioSet as WebDataset tars (audio, and .json with the labels) or as Parquet (audio bytes, and columns of labels).
Labels have a column of their own; other fields of the source are in `metadata`. Clips whose download was broken become
rejects. Submitting the same job again resumes it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pipeline.cli.__main__ import run

CONFIG = Path(__file__).parent.parent / "configs" / "audioset.yaml"


def arguments_of(argv: list[str] | None = None) -> list[str]:
    """The arguments of `moss-tok` for these arguments of the job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", metavar="URI", help="tars or Parquet files of the train split, or globs")
    parser.add_argument("--eval", nargs="+", metavar="URI", help="tars or Parquet files of the eval split, or globs")
    parser.add_argument("--output", metavar="URI", help="folder of the dataset of codes")
    parser.add_argument("--config", default=str(CONFIG), help="configuration to start from (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="set a key of the configuration")
    given = parser.parse_intermixed_args(argv)
    splits = {name: uris for name, uris in (("train", given.train), ("eval", given.eval)) if uris}
    overrides = [f"input.splits={json.dumps(splits)}"] if splits else []
    if given.output:
        overrides.append(f"output.uri={json.dumps(given.output)}")
    return ["tokenize", given.config, *overrides, *given.overrides]


if __name__ == "__main__":
    sys.exit(run(arguments_of()))
