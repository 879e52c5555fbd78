"""Tokenize a dataset on the Ray cluster that this job was submitted to.

    ray job submit --working-dir . -- python jobs/tokenize_dataset.py configs/librispeech.yaml output.uri=s3://bucket/codes

The arguments and the exit status are those of `moss-tok tokenize`; submitting the same job again resumes it.
"""

from __future__ import annotations

import sys

from pipeline.cli.__main__ import run

if __name__ == "__main__":
    sys.exit(run(["tokenize", *sys.argv[1:]]))
