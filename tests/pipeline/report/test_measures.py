"""The measures beside a decoded clip are those of the evaluation, and what has no value is left out."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from pipeline import extras
from pipeline.report.measures import measured
from tests.support import ROOT

SPEECH = ROOT / "demo" / "corpus" / "folder" / "librivox" / "0870.wav"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(SPEECH, dtype="float32")[0][None]


def test_noise_costs_what_the_evaluation_says(speech):
    noise = np.random.default_rng(0).standard_normal(speech.shape).astype(np.float32)
    noise *= np.sqrt((speech**2).mean() / (noise**2).mean() / 10)  # 10 dB
    assert measured(speech, speech, 16000) == ["STOI 1.00", "mel loss 0.00"]
    assert measured(speech, speech + noise, 16000) == ["STOI 0.90", "mel loss 3.0"]


def test_silence_has_no_intelligibility(speech):
    (only,) = measured(speech, np.zeros_like(speech), 16000)
    assert only.startswith("mel loss ")


def test_without_the_package_the_mel_loss_is_left(speech, monkeypatch):
    def missing(module: str, extra: str) -> None:
        raise extras.MissingPackage(module)

    monkeypatch.setattr("pipeline.evaluate.metrics.require", missing)
    assert measured(speech, speech, 16000) == ["mel loss 0.00"]
