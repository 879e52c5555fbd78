"""Resampling: torchaudio's values, and the same bits whatever the blocks and the threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tok.audio import StreamingResampler, resample, resampled_length
from moss_tok.audio.resample import MAX_SAMPLE, SAMPLE_UNIT, _sine, filter_bank

DIGEST = "89d2bb58d2dea6d009f6b979fa40ca17b64b11c3afbe16bdb748d38592185f8e"
RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]
PAIRS = [(orig, new) for orig in RATES for new in (24_000, 48_000) if orig != new]


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(samples).uniform(-1, 1, (channels, samples)).astype(np.float32)


def torchaudio_resample(waveform: np.ndarray, orig: int, new: int) -> np.ndarray:
    return torchaudio.functional.resample(torch.from_numpy(waveform), orig, new).numpy()


@pytest.mark.parametrize(("orig", "new"), [*PAIRS, (32_000, 24_000), (24_000, 16_000), (88_200, 24_000)])
@pytest.mark.parametrize("samples", [1, 13, 1_000, 70_001])
def test_the_values_are_those_of_torchaudio(orig, new, samples):
    waveform = noise(samples, 2)
    ours, theirs = resample(waveform, orig, new), torchaudio_resample(waveform, orig, new)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(orig=st.integers(50, 700), new=st.integers(50, 700), samples=st.integers(1, 3_000))
def test_any_pair_of_rates_agrees_with_torchaudio(orig, new, samples):
    waveform = noise(samples)
    ours, theirs = resample(waveform, orig, new), torchaudio_resample(waveform, orig, new)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    pair=st.sampled_from([*PAIRS, (44_101, 24_000)]),
    blocks=st.lists(st.integers(0, 40_000), min_size=1, max_size=8),
    channels=st.integers(1, 2),
)
def test_blocks_end_to_end_are_the_whole_bit_for_bit(pair, blocks, channels):
    waveform = noise(sum(blocks), channels)
    resampler = StreamingResampler(*pair, channels)
    edges = np.cumsum(blocks)[:-1]
    pieces = [resampler.push(block) for block in np.split(waveform, edges, axis=1)] + [resampler.flush()]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), resample(waveform, *pair))


@pytest.mark.parametrize("orig", [16_000, 44_100, 48_000])
def test_the_bits_do_not_depend_on_the_position_in_a_longer_clip(orig):
    waveform = noise(10 * orig)
    whole, start = resample(waveform, orig, 24_000), resample(waveform[:, : 4 * orig], orig, 24_000)
    settled = start.shape[1] - 100  # the last outputs look at what follows
    np.testing.assert_array_equal(start[:, :settled], whole[:, :settled])


SCRIPT = """
import hashlib, numpy as np
from moss_tok.audio import resample
x = np.random.default_rng(3).uniform(-1, 1, (2, 60_000)).astype(np.float32)
x[1, 30_000:] *= 1000
rates = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 44_101, 48_000, 96_000)
y = [resample(x, rate, new).tobytes() for rate in rates for new in (24_000, 48_000) if rate != new]
print(hashlib.sha256(b"".join(y)).hexdigest())
"""
KINDS = {
    "this CPU": {},
    "AVX2": {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"},
    "SSE4": {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_the_same_in_any_process_on_any_cpu(kind):
    """Not only equal to each other: these are the bits that every machine must give."""
    runs = []
    for threads in ("1", "2", "4"):
        environment = {**os.environ, **KINDS[kind], "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
        runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    digests = {run.communicate()[0].strip() for run in runs}
    assert digests == {DIGEST}


@pytest.mark.parametrize("orig", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("loudest", [4.1, 32_768, 1e30])
def test_louder_samples_than_fit_keep_their_precision_and_their_neighbours(orig, loudest):
    """Whatever lies beside them; and the tail of a loud clip is that of a clip that was never loud."""
    waveform = noise(3 * orig)
    loud = waveform.copy()
    loud[:, : orig // 2] *= np.float32(loudest)
    found, quiet = resample(loud, orig, 24_000), resample(waveform, orig, 24_000)
    expected = torchaudio_resample(loud, orig, 24_000)
    np.testing.assert_allclose(found[:, :11_000] / loudest, expected[:, :11_000] / loudest, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(found[:, 13_000:], quiet[:, 13_000:])
    resampler = StreamingResampler(orig, 24_000, 1)
    pieces = [resampler.push(piece) for piece in np.split(loud, [7, 1000, orig // 2 - 3, orig], axis=1)]
    np.testing.assert_array_equal(np.concatenate([*pieces, resampler.flush()], axis=1), found)


def test_no_sum_of_any_bank_leaves_the_bits_in_which_it_is_exact():
    """Taps are whole numbers, and full-scale samples of the worst signs add up to less than 2^53."""
    for orig, new in ((1, 3), (2, 1), (2, 3), (147, 80), (147, 160), (147, 320), (4, 3), (31, 7), (1, 48), (48, 1)):
        for _, _, _, taps in filter_bank(orig, new).tiles:
            assert (taps == np.rint(taps)).all()
            assert np.abs(taps).sum(axis=0).max() * (MAX_SAMPLE / SAMPLE_UNIT) <= 2.0**53


def test_the_sine_is_right_and_made_of_exact_operations():
    angles = np.linspace(-20, 20, 100_001)
    np.testing.assert_allclose(_sine(angles), np.sin(angles), rtol=0, atol=4e-15)


@pytest.mark.parametrize("orig", [8_000, 44_100, 48_000, 44_101])
def test_a_stream_holds_back_little(orig):
    resampler = StreamingResampler(orig, 24_000, 1)
    given_out = 0
    for second in range(1, 21):
        given_out += resampler.push(noise(orig)).shape[1]
        assert second * 24_000 - given_out < 1.1 * 24_000


def test_lengths_are_torchaudios_while_those_are_right_to_a_sample():
    for samples in (*range(1, 400), 1_000_003, 1000030):
        expected = torchaudio_resample(np.zeros((1, samples), np.float32), 44_100, 24_000).shape[1]
        assert resampled_length(samples, 44_100, 24_000) == expected
    assert resampled_length(1000030, 44_100, 24_000) == 544234  # 544234.0136054421, which float32 rounds down
    twelve_hours = 12 * 3600 * 44_100
    assert resampled_length(twelve_hours + 1, 44_100, 24_000) == 12 * 3600 * 24_000 + 1


def test_an_equal_rate_changes_nothing():
    waveform = noise(100)
    assert resample(waveform, 16_000, 16_000) is waveform
    resampler = StreamingResampler(16_000, 16_000, 1)
    np.testing.assert_array_equal(resampler.push(waveform), waveform)
    assert resampler.flush().shape == (1, 0)


def test_no_samples_give_no_samples():
    assert resample(noise(0, 2), 44_100, 24_000).shape == (2, 0)


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(10, np.float32), np.zeros((1, 10)), np.zeros((1, 10), np.int16), np.zeros((1, 1, 10), np.float32)],
)
def test_other_shapes_and_dtypes_are_refused(waveform):
    with pytest.raises(ValueError, match="a waveform must be float32 of shape"):
        resample(waveform, 16_000, 24_000)


def test_a_stream_refuses_other_channels_and_pushes_after_its_end():
    resampler = StreamingResampler(16_000, 24_000, 2)
    with pytest.raises(ValueError, match=r"shape \(2, samples\), got float32 of shape \(1, 5\)"):
        resampler.push(noise(5))
    resampler.flush()
    with pytest.raises(ValueError, match="was flushed"):
        resampler.push(noise(5, 2))
    with pytest.raises(ValueError, match="was flushed"):
        resampler.flush()


@pytest.mark.parametrize("arguments", [(0, 24_000, 1), (16_000, -1, 1), (16_000, 24_000, 0)])
def test_rates_and_channels_must_be_positive(arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        StreamingResampler(*arguments)
