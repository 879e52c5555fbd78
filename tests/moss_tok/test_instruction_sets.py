"""What this CPU can do is taken from it, in processes of their own: the codes are still a function of the audio alone,
at any number of threads. So a machine with AVX-512 also tests what others run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support import ROOT

KINDS = {
    "this CPU": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN of AVX2 alone": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "no AMX": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_differs_alone_and_together_at_any_number_of_threads(kind: str) -> None:
    trials = []
    for threads in ("1", "2", "4"):
        environment = os.environ | KINDS[kind] | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        command = [sys.executable, "-m", "tests.moss_tok.invariance_trial"]
        trials.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    said = [json.loads(trial.communicate()[0]) for trial in trials]
    assert [trial["differ"] for trial in said] == [[], [], []]
    assert said[0]["digest"] == said[1]["digest"] == said[2]["digest"]
    assert said[0]["numerics"] == said[1]["numerics"] == said[2]["numerics"]
