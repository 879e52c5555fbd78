"""Statistics of a waveform: their values, and the same bits in any process on any CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from pipeline.steps.audio_stats import AudioStats, amplitude, decibels
from tests.support import ROOT

SCRIPT = """
import numpy as np
from moss_tok.audio import to_channels
from pipeline.steps.audio_stats import AudioStats, amplitude, decibels
draw = np.random.default_rng(5)
for channels in (1, 2):
    stats = AudioStats(1920)
    many = draw.uniform(-1, 1, (11, 50_001)).astype(np.float32)
    for part in np.split(to_channels(many, channels), [1920, 38_400], axis=1):
        stats.add(part)
    print(stats.rms.hex(), stats.level_dbfs.hex(), stats.peak.hex(), stats.silence, stats.clipping, stats.xxh3)
print([decibels(power).hex() for power in draw.uniform(1e-9, 1, 200)])
print([float(amplitude(gain)).hex() for gain in draw.uniform(-20, 20, 200)])
"""
KINDS = [
    {},
    {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"},
    {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR", "OMP_NUM_THREADS": "4"},
    {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2_Usable,-AVX2,-FMA_Usable,-FMA,-AVX512F", "OMP_NUM_THREADS": "2"},
]


def test_the_bits_are_the_same_in_any_process_on_any_cpu():
    runs = []
    for kind in KINDS:
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
        runs.append(subprocess.Popen(command, env=os.environ | kind, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    said = [run.communicate()[0] for run in runs]
    assert all(run.returncode == 0 for run in runs)
    assert len(set(said)) == 1


def test_the_figures_are_those_of_the_definition():
    waveform = np.random.default_rng(1).uniform(-1, 1, (2, 10_007)).astype(np.float32)
    waveform[0, :300] = 0
    stats = AudioStats(960)
    for part in np.split(waveform, [960, 4800], axis=1):
        stats.add(part)
    exact = waveform.astype(np.float64)
    assert stats.rms == pytest.approx(np.sqrt((exact**2).mean()), rel=1e-6)
    assert stats.level_dbfs == pytest.approx(10 * np.log10((exact**2).mean() + 1e-9), rel=1e-6)
    assert stats.peak == np.abs(waveform).max()
    assert stats.silence == (np.abs(waveform) < 0.001).mean()
    assert decibels(0.5) == pytest.approx(10 * np.log10(0.5), rel=1e-15)
    assert amplitude(-6.5) == np.float32(10 ** (-6.5 / 20))
