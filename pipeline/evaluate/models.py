"""Metrics that need a model: speaker similarity, and the error rate of a speech recognizer.

`sim`, `wer` and `cer` use models that the user names. `sim_resemblyzer` and `wer_pocketsphinx` use small models that
ship inside packages and run offline; their values are not comparable with those of the others, hence their own names.

A model metric looks at whole clips: it is given the reference and the decoded sound at 16 kHz, and the source's text.
"""

from __future__ import annotations

import importlib
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluate.distances import SAMPLE_RATE
from pipeline.evaluate.metrics import UndefinedMetric, refuse_silence
from pipeline.extras import MissingPackage, require

Waveform = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClipText:
    """What the source says of a clip's speech."""

    text: str | None
    language: str | None


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The models that the user named; hashable, so that each is loaded once in a process."""

    speakers: str | None = None
    recognizer: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A number for a pair of waveforms, made by a model."""

    name: str
    label: str
    better: Literal["higher", "lower"]
    measure: Callable[[Waveform, Waveform, ClipText, ModelNames], float]
    """Of (reference, decoded) at 16 kHz. Raises UndefinedMetric."""


def _speaker_similarity(reference: Waveform, decoded: Waveform, about: ClipText, names: ModelNames) -> float:
    extractor, model = _speaker_model(str(names.speakers))
    refuse_silence(reference, decoded)
    if len(reference) < _shortest(model.config):
        raise UndefinedMetric("too_short")
    embeddings = []
    for waveform in (reference, decoded):
        inputs = extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.inference_mode():
            embeddings.append(model(**inputs).embeddings[0].double().numpy())
    return _cosine(*embeddings)


@cache
def _speaker_model(name: str) -> tuple[Any, Any]:
    transformers = require("transformers", "evaluate")
    with _loading("speakers.model", name):
        extractor = transformers.AutoFeatureExtractor.from_pretrained(name)
        model = transformers.AutoModelForAudioXVector.from_pretrained(name, use_safetensors=True)
    return extractor, model.eval()


@contextmanager
def _loading(key: str, name: str) -> Iterator[None]:
    """Whatever a library says of a model that it cannot load becomes a ValueError that names the key."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{key}: {name} cannot be loaded: {' '.join(str(error).split())}") from error


def _shortest(config: Any) -> int:
    """Samples of the shortest waveform that has an embedding: of two frames at the end of all convolutions, because a
    standard deviation is taken over them.
    """
    frames = 2 + sum((size - 1) * gap for size, gap in zip(config.tdnn_kernel, config.tdnn_dilation, strict=True))
    convolutions = zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True)
    for size, stride in reversed(list(convolutions)):
        frames = (frames - 1) * stride + size
    return int(frames)


def _resemblyzer(reference: Waveform, decoded: Waveform, about: ClipText, names: ModelNames) -> float:
    """Cosine of the d-vectors of Resemblyzer, a speaker encoder trained by GE2E (Wan et al., 2018)."""
    encoder = _resemblyzer_encoder()
    if min(len(reference), len(decoded)) < SAMPLE_RATE // 2:
        raise UndefinedMetric("too_short")
    refuse_silence(reference, decoded)
    return _cosine(*(encoder.embed_utterance(waveform) for waveform in (reference, decoded)))


@cache
def _resemblyzer_encoder() -> Any:
    try:
        resemblyzer = importlib.import_module("resemblyzer")
    except ImportError as error:  # it cannot be part of an extra: it asks for a package that Python has had since 3.5
        raise MissingPackage(
            f"this needs the package resemblyzer ({error}): pip install librosa webrtcvad-wheels, and then "
            "pip install --no-deps resemblyzer"
        ) from None
    return resemblyzer.VoiceEncoder("cpu", verbose=False)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), np.finfo(np.float64).tiny))


def _word_errors(reference: Waveform, decoded: Waveform, about: ClipText, names: ModelNames) -> float:
    expected = _expected(about).split()
    return error_rate(expected, normalized(_whisper(decoded, about, names)).split())


def _character_errors(reference: Waveform, decoded: Waveform, about: ClipText, names: ModelNames) -> float:
    """Of letters, without spaces, as is usual for Chinese and Japanese."""
    expected = list(_expected(about).replace(" ", ""))
    return error_rate(expected, list(normalized(_whisper(decoded, about, names)).replace(" ", "")))


def _whisper(decoded: Waveform, about: ClipText, names: ModelNames) -> str:
    """Greedy with a beam of 5 and no fallback to sampling, so that a clip has one transcript."""
    model = _whisper_model(str(names.recognizer))
    language = names.language or _whisper_language(about.language, model.supported_languages)
    segments, _ = model.transcribe(
        decoded, language=language, beam_size=5, temperature=0.0, condition_on_previous_text=False
    )
    return " ".join(segment.text for segment in segments)


def _whisper_language(language: str | None, known: Sequence[str]) -> str | None:
    """As Whisper names it: de for de-DE; None, so that it is heard, where Whisper knows none of that name."""
    code = (language or "").casefold().replace("_", "-").partition("-")[0]
    return code if code in known else None


@cache
def _whisper_model(name: str) -> Any:
    whisper = require("faster_whisper", "evaluate")
    device, precision = ("cuda", "float16") if torch.cuda.is_available() else ("cpu", "float32")
    with _loading("recognizer.model", name):
        return whisper.WhisperModel(name, device=device, compute_type=precision)


def _pocketsphinx(reference: Waveform, decoded: Waveform, about: ClipText, names: ModelNames) -> float:
    """English only: the acoustic and language model inside the package."""
    expected = _expected(about).split()
    decoder = _pocketsphinx_decoder()
    decoder.start_utt()
    decoder.process_raw((np.clip(decoded, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return error_rate(expected, normalized(found.hypstr if found else "").split())


@cache
def _pocketsphinx_decoder() -> Any:
    return require("pocketsphinx", "evaluate").Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")


def _expected(about: ClipText) -> str:
    text = normalized(about.text or "")
    if not text:
        raise UndefinedMetric("no_text")
    return text


def normalized(text: str) -> str:
    """Lower case, letters, digits and apostrophes alone, words separated by one space."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return " ".join(re.findall(r"[\w']+", folded.replace("_", " ")))


def error_rate(expected: list[str], heard: list[str]) -> float:
    """Insertions, deletions and substitutions divided by what is expected (Levenshtein, 1966); may exceed 1."""
    row = np.arange(len(heard) + 1)
    for index, symbol in enumerate(expected, 1):
        substituted = row[:-1] + np.array([symbol != other for other in heard], dtype=row.dtype)
        best = np.minimum(np.append(index, substituted), np.append(index, row[1:] + 1))
        row = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))
    return float(row[-1] / len(expected)) if expected else math.nan


MODEL_METRICS: dict[str, ModelMetric] = {
    metric.name: metric
    for metric in (
        ModelMetric("sim", "SIM", "higher", _speaker_similarity),
        ModelMetric("sim_resemblyzer", "Resemblyzer similarity", "higher", _resemblyzer),
        ModelMetric("wer", "WER", "lower", _word_errors),
        ModelMetric("cer", "CER", "lower", _character_errors),
        ModelMetric("wer_pocketsphinx", "WER (PocketSphinx)", "lower", _pocketsphinx),
    )
}
"""The metrics that need a model, in the order of the table."""
