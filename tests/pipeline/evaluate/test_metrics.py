"""Metrics: the official definitions to three digits, and a reason wherever there is no value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional

from pipeline.evaluate.distances import BANDS, mel_loss, si_sdr, stft_distance
from pipeline.evaluate.mel import mel_bands
from pipeline.evaluate.metrics import METRICS, UNDEFINED, UndefinedMetric, Waveform, comparable

CHECK_VALUES = {
    30: {"stoi": 0.9970, "pesq_nb": 3.631, "pesq_wb": 2.216, "mel": 1.0061, "stft": 2.3276},
    10: {"stoi": 0.9004, "pesq_nb": 1.574, "pesq_wb": 1.050, "mel": 2.9862, "stft": 5.5383},
}
"""By the official evaluation's own code: speech with white noise at so many dB."""


@pytest.fixture(scope="module")
def speech(corpus: Path) -> Waveform:
    waveform, rate = soundfile.read(corpus / "folder" / "librivox" / "0870.wav", dtype="float32")
    assert rate == 16_000
    return waveform


def with_noise(speech: Waveform, decibels: float) -> Waveform:
    power = np.sqrt(np.mean(speech.astype(np.float64) ** 2))
    noise = np.random.default_rng(0).standard_normal(len(speech)) * power * 10 ** (-decibels / 20)
    return (speech + noise).astype(np.float32)


@pytest.mark.parametrize("decibels", CHECK_VALUES)
@pytest.mark.parametrize("name", ["stoi", "pesq_nb", "pesq_wb", "mel", "stft"])
def test_a_metric_equals_the_official_value_to_three_digits(speech: Waveform, decibels: int, name: str):
    reference, decoded = comparable(speech[None], 16_000, with_noise(speech, decibels)[None], 16_000)
    expected = CHECK_VALUES[decibels][name]
    assert METRICS[name].measure(reference, decoded) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("window", "bands"), BANDS.items())
def test_mel_bands_are_those_of_torchaudio(window: int, bands: int):
    bins = window // 2 + 1
    expected = torchaudio.functional.melscale_fbanks(bins, 0.0, 8000.0, bands, 16_000, "slaney", "slaney")
    assert torch.allclose(mel_bands(bins, bands, 16_000), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_compared_sounds_are_resampled_as_by_torchaudio(speech: Waveform, rate: int):
    reference, _ = comparable(speech[None], rate, speech[None], rate)
    expected = torchaudio.functional.resample(torch.from_numpy(speech), rate, 16_000).numpy()
    assert np.allclose(reference, expected, atol=2e-6)


def test_si_sdr_of_white_noise_is_its_level(speech: Waveform):
    measured = si_sdr(torch.from_numpy(speech), torch.from_numpy(with_noise(speech, 10)))
    assert measured == pytest.approx(10, abs=0.2)


def test_si_sdr_does_not_depend_on_the_gain(speech: Waveform):
    reference, decoded = torch.from_numpy(speech), torch.from_numpy(with_noise(speech, 10))
    assert si_sdr(reference, decoded * 0.1) == pytest.approx(si_sdr(reference, decoded), abs=1e-3)


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_si_sdr_of_the_reference_itself_has_no_value_that_could_be_averaged(speech: Waveform, gain: float):
    with pytest.raises(UndefinedMetric, match="exact"):
        METRICS["si_sdr"].measure(speech, speech * np.float32(gain))


@pytest.mark.parametrize("samples", [1, 2])
def test_si_sdr_needs_three_samples(samples: int):
    with pytest.raises(UndefinedMetric, match="too_short"):
        METRICS["si_sdr"].measure(np.ones(samples, np.float32), np.linspace(1, 2, samples, dtype=np.float32))


@pytest.mark.slow
def test_dnsmos_prefers_the_clean_recording(speech: Waveform):
    measure = METRICS["dnsmos"].measure
    assert measure(speech, speech) > measure(speech, with_noise(speech, 10)) + 0.5


@pytest.mark.parametrize("name", ["stoi", "pesq_nb", "pesq_wb", "si_sdr", "dnsmos"])
def test_silence_has_no_value_and_a_reason(name: str):
    silence = np.zeros(16_000, np.float32)
    with pytest.raises(UndefinedMetric, match="silent"):
        METRICS[name].measure(silence, silence)


@pytest.mark.parametrize("name", ["stoi", "pesq_nb", "pesq_wb"])
def test_a_tenth_of_a_second_has_no_value_and_a_reason(speech: Waveform, name: str):
    with pytest.raises(UndefinedMetric, match="too_short"):
        METRICS[name].measure(speech[:1600], speech[:1600] * 0.5)


def test_pesq_refuses_what_would_write_past_its_tables(speech: Waveform):
    long = np.tile(speech, 9)
    with pytest.raises(UndefinedMetric, match="too_long"):
        METRICS["pesq_wb"].measure(long, long)


@pytest.mark.slow
def test_pesq_that_crashes_ends_a_process_of_its_own():
    """Sixty utterances in 40 s: the library keeps 50 and ends by a segmentation fault."""
    noise = np.random.default_rng(0).standard_normal(4_000).astype(np.float32) * 0.1
    bursts = np.tile(np.concatenate([noise, np.zeros(5_000, np.float32)]), 71)
    with pytest.raises(UndefinedMetric, match="crashed"):
        METRICS["pesq_wb"].measure(bursts, bursts + np.float32(1e-4))


@pytest.mark.parametrize("samples", [1, 2, 127, 300, 2_047])
def test_distances_have_a_value_for_any_length(samples: int):
    waveform = torch.linspace(-0.5, 0.5, samples)
    assert mel_loss(waveform, waveform) == 0
    assert stft_distance(waveform, waveform * 0.5) >= 0
    assert np.isfinite(mel_loss(waveform, waveform * 0.5))


def test_what_is_compared_is_as_long_as_the_reference(speech: Waveform):
    reference = np.repeat(speech[None, :3000], 2, axis=0)
    for decoded in (reference[:, :2900], np.pad(reference, ((0, 0), (0, 77)))):
        one, other = comparable(reference, 24_000, decoded, 24_000)
        assert len(one) == len(other) == 2000


def test_every_reason_is_explained():
    assert {"silent", "too_short", "too_long", "no_text", "crashed", "no_speech", "exact"} == UNDEFINED.keys()
