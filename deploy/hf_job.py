# /// script
# requires-python = ">=3.10"
# dependencies = ["moss-tok"]
#
# [tool.uv.sources]
# moss-tok = { url = "https://huggingface.co/datasets/YOUR_NAME/wheels/resolve/main/moss_tok-0.1.0-py3-none-any.whl" }
# ///
"""Tokenize in a job of the Hugging Face hub, on one machine: this file is all that the job needs.

Once, make the wheel and put it where the job finds it, which is named above:

    pip wheel --no-deps -w dist .
    hf repos create YOUR_NAME/wheels --type dataset
    hf upload YOUR_NAME/wheels dist/moss_tok-0.1.0-py3-none-any.whl --repo-type dataset

Then say below what to tokenize, and start it. The codes are written into a bucket, which is a folder of the job:

    hf buckets create YOUR_NAME/codes
    hf jobs uv run --flavor a10g-large --timeout 24h --attempts 3 --secrets HF_TOKEN \\
        --volume hf://buckets/YOUR_NAME/codes:/codes deploy/hf_job.py

The same command goes on with what is left. Keys can be set after the name of this file: model.dtype=float32.
"""

import sys
import tempfile
from pathlib import Path

CONFIG = """
input:
  splits:
    train: ["hf://datasets/openslr/librispeech_asr/clean/train.100/*.parquet"]
    test: ["hf://datasets/openslr/librispeech_asr/clean/test/*.parquet"]
output:
  uri: /codes/librispeech
model:
  name: OpenMOSS-Team/MOSS-Audio-Tokenizer
  dtype: bfloat16
card:
  license: cc-by-4.0
"""

if __name__ == "__main__":
    from pipeline.cli.__main__ import run

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "job.yaml")
        config.write_text(CONFIG, encoding="utf-8")
        sys.exit(run(["tokenize", str(config), *sys.argv[1:]]))
