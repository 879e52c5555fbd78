"""Prepare a dataset of codes for training speech synthesis: MOSS-TTS JSONL, or token sequences for a language model.

    ray job submit --working-dir . -- python jobs/prepare_tts.py --dataset s3://bucket/codes --out s3://bucket/tts
    python jobs/prepare_tts.py --dataset out/demo --out out/tokens --to tokens \\
        --set tokens.tokenizer=qwen/tokenizer.json tokens.layout=delay 'tokens.audio_slot="<|audio_pad|>"'

Begins with configs/export_tts.yaml: clips of 1 to 30 seconds whose transcript fits their length, each with a second
clip of the same speaker where there is one. It runs in one process; the same job again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.cli import main

CONFIG = Path(__file__).parent.parent / "configs" / "export_tts.yaml"


def arguments_of(argv: list[str] | None = None) -> list[str]:
    """The arguments of `moss-tok` that do what these ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, metavar="URI", help="the dataset of codes")
    parser.add_argument("--out", required=True, metavar="URI", help="folder of the export")
    parser.add_argument("--to", choices=("moss-tts", "tokens"), default="moss-tts", help="default: %(default)s")
    parser.add_argument("--config", default=str(CONFIG), help="configuration to begin with (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="section.key=value", help="set keys of it"
    )
    given = parser.parse_args(argv)
    overrides = ["--set", *given.set] if given.set else []
    return ["export", given.dataset, "--to", given.to, "--out", given.out, "--config", given.config, *overrides]


if __name__ == "__main__":
    sys.exit(main(arguments_of()))
