"""`import moss_tok` is light: torch, numpy, safetensors, and nothing else of weight."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PROBE = """
import json, sys, time
import torch, numpy, safetensors.torch
before, started = set(sys.modules), time.perf_counter()
import moss_tok
seconds = time.perf_counter() - started
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


def test_import_adds_little_to_torchs_own():
    run = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(run.stdout)
    heavy = {"huggingface_hub", "transformers", "torchaudio", "soundfile", "av", "ray", "pyarrow", "datasets", "fsspec"}
    assert not heavy & set(modules)
    assert seconds < 0.3
