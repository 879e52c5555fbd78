"""Prepare a dataset of codes for training speech recognition: NeMo manifests or Lhotse Shar.

    ray job submit --working-dir . -- python jobs/prepare_asr.py --dataset s3://bucket/codes --out s3://bucket/shar
    python jobs/prepare_asr.py --dataset out/demo --out out/nemo --to nemo --set dataset.num_quantizers=4 asr.buckets=3

Starts from configs/export_asr.yaml: normalized transcripts, the first 8 RVQ layers, clips in buckets of similar length.
It runs in one process. The same job again continues.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.cli.__main__ import run
from pipeline.cli.export import job_arguments

CONFIG = Path(__file__).parent.parent / "configs" / "export_asr.yaml"


if __name__ == "__main__":
    sys.exit(run(job_arguments(__doc__, ("lhotse", "nemo"), CONFIG, sys.argv[1:])))
