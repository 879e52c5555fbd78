"""Prepare a dataset of codes for training speech synthesis: MOSS-TTS JSONL, or token sequences for a language model.

    ray job submit --working-dir . -- python jobs/prepare_tts.py --dataset s3://bucket/codes --out s3://bucket/tts
    python jobs/prepare_tts.py --dataset out/demo --out out/tokens --to tokens \\
        --set tokens.tokenizer=qwen/tokenizer.json tokens.layout=delay 'tokens.audio_slot="<|audio_pad|>"'

Starts from configs/export_tts.yaml: clips of 1 to 30 seconds whose transcript fits their length, each with a second
clip of the same speaker if there is one. It runs in one process. The same job again continues.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.cli.__main__ import run
from pipeline.cli.export import job_arguments

CONFIG = Path(__file__).parent.parent / "configs" / "export_tts.yaml"


if __name__ == "__main__":
    sys.exit(run(job_arguments(__doc__, ("moss-tts", "tokens"), CONFIG, sys.argv[1:])))
