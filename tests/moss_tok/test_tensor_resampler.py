"""Resampling on the device that the waveform is on: torchaudio's values, from any rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio.functional

from moss_tok.audio.resample import resample
from moss_tok.tensor_resampler import resample_tensor

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("new_rate", [24_000, 48_000])
@pytest.mark.parametrize("orig_rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_values_are_torchaudios(orig_rate: int, new_rate: int, device: str):
    draw = np.random.default_rng(orig_rate)
    waveform = draw.uniform(-1, 1, (2, orig_rate // 3 + 17)).astype(np.float32)
    found = resample_tensor(torch.from_numpy(waveform).to(device), orig_rate, new_rate).cpu()
    expected = torchaudio.functional.resample(torch.from_numpy(waveform), orig_rate, new_rate)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-6
    np.testing.assert_array_equal(found.numpy(), resample(waveform, orig_rate, new_rate))


@pytest.mark.parametrize("device", DEVICES)
def test_loud_and_infinite_samples_are_those_of_resample(device: str):
    waveform = np.random.default_rng(1).uniform(-1, 1, (2, 48_000)).astype(np.float32)
    waveform[0, 10_000:20_000] *= 1e6
    waveform[1, 30_000] = np.inf
    found = resample_tensor(torch.from_numpy(waveform).to(device), 44_100, 24_000).cpu().numpy()
    np.testing.assert_array_equal(found, resample(waveform, 44_100, 24_000))


@pytest.mark.parametrize("samples", [0, 1, 2, 100])
def test_short_clips_have_the_length_of_resample(samples: int):
    waveform = torch.ones(1, samples)
    expected = resample(waveform.numpy(), 44_100, 24_000).shape
    assert resample_tensor(waveform, 44_100, 24_000).shape == expected


def test_what_is_no_waveform_is_refused():
    with pytest.raises(ValueError, match="float32 of shape"):
        resample_tensor(torch.zeros(5), 16_000, 24_000)
    with pytest.raises(ValueError, match="float32 of shape"):
        resample_tensor(torch.zeros(1, 5, dtype=torch.float64), 16_000, 24_000)
    with pytest.raises(ValueError, match="rates"):
        resample_tensor(torch.zeros(1, 5), 0, 24_000)
