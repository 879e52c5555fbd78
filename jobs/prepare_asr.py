"""Prepare a dataset of codes for training speech recognition: NeMo manifests or Lhotse Shar.

    ray job submit --working-dir . -- python jobs/prepare_asr.py --dataset s3://bucket/codes --out s3://bucket/shar
    python jobs/prepare_asr.py --dataset out/demo --out out/nemo --to nemo --set dataset.num_quantizers=4 asr.buckets=3

Begins with configs/export_asr.yaml: normalized transcripts, the first 8 RVQ layers, clips in buckets of similar length.
It runs in one process; the same job again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.cli import main

CONFIG = Path(__file__).parent.parent / "configs" / "export_asr.yaml"


def arguments_of(argv: list[str] | None = None) -> list[str]:
    """The arguments of `moss-tok` that do what these ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, metavar="URI", help="the dataset of codes")
    parser.add_argument("--out", required=True, metavar="URI", help="folder of the export")
    parser.add_argument("--to", choices=("lhotse", "nemo"), default="lhotse", help="default: %(default)s")
    parser.add_argument("--config", default=str(CONFIG), help="configuration to begin with (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="section.key=value", help="set keys of it"
    )
    given = parser.parse_args(argv)
    overrides = ["--set", *given.set] if given.set else []
    return ["export", given.dataset, "--to", given.to, "--out", given.out, "--config", given.config, *overrides]


if __name__ == "__main__":
    sys.exit(main(arguments_of()))
