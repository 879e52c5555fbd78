"""The benchmark for GPUs: rehearsed on the CPU, and what it does about a step that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.codec_cuda import as_markdown, run_apart
from benchmarks.codec_cuda_steps import STEPS, Step
from tests.support import ROOT

pytestmark = pytest.mark.slow  # it starts a process for each step


def test_a_rehearsal_goes_through_every_step(tmp_path):
    out = tmp_path / "gpu.json"
    left_out = ("tests", "sweep, small,", "sweep, large,")  # tests of this suite, and sizes between two others
    steps = [name for name in STEPS if not name.startswith(left_out)]
    command = [sys.executable, "-m", "benchmarks.codec_cuda", "--rehearse", "--out", out, "--steps", *steps]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    results = json.loads(out.read_text())
    assert list(results) == steps
    assert {name: result["error"] for name, result in results.items() if "error" in result} == {}
    assert all(results["bits"][way] for way in ("alone", "in another order", "as a stream"))
    assert results["bits"]["sha256"] == results["bits, another process"]["sha256"]
    assert results["golden"]["float32, % of codes equal"] == 100
    assert results["search"]["undecided rows as its sums"]
    assert results["short of memory"]["codes equal"]
    assert out.with_suffix(".md").read_text() == as_markdown(results)
    assert "| case | x real time |" in as_markdown(results)


def test_a_step_that_fails_dies_or_hangs_is_an_entry_and_no_end():
    def fails(bench):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def dies(bench):
        os._exit(11)

    def hangs(bench):
        time.sleep(3600)

    failed, died, hung = (run_apart(Step(run, 0), None, limit) for run, limit in ((fails, 60), (dies, 60), (hangs, 1)))
    assert failed["error"] == "AcceleratorError: CUDA error: an illegal memory access was encountered"
    assert died["error"] == "its process died"
    assert hung["error"] == "not done within its limit of 1 s"
