"""The language that is spoken in a clip, as a Whisper model that the user names hears it (Radford et al., 2022).

faster-whisper runs the model, as in `moss-tok evaluate`. It imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.extras import require
from pipeline.signal_config import LanguageConfig
from pipeline.steps.clip_signals.packaged_model import file_sha256

SAMPLE_RATE = 16_000
SECONDS = 30
"""Whisper looks at so much of a clip, its beginning."""
DIGITS = 3
"""Decimals of the probability: CPUs differ in later ones."""
_KEY = "signals.language.model"


class Language:
    """The columns `detected_language` and `language_probability`; null for silence."""

    sample_rate: int | None = SAMPLE_RATE
    packages: ClassVar[tuple[str, ...]] = ("faster-whisper", "ctranslate2")

    def __init__(self, made_by: Mapping[str, Any]) -> None:
        self._model, sha256 = _load(made_by["model"])
        if sha256 != made_by["sha256"]:
            raise ValueError(
                f"{_KEY}: {made_by['model']} is not the model of the output, whose SHA-256 begins with "
                f"{made_by['sha256'][:12]}"
            )

    @staticmethod
    def describe(config: LanguageConfig) -> dict[str, Any]:
        """Loads the model, so that one that cannot be used is known before the work begins."""
        name = os.path.abspath(config.model) if os.path.isdir(config.model) else config.model
        return {"model": name, "sha256": _load(name)[1]}

    def start(self, sample_rate: int) -> Beginning:
        return Beginning(self._model)


class Beginning:
    """The beginning of one clip."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._samples: list[np.ndarray] = []
        self._missing = SECONDS * SAMPLE_RATE

    def add(self, samples: np.ndarray) -> None:
        if self._missing > 0:
            self._samples.append(samples[: self._missing])
            self._missing -= len(samples)

    def finish(self) -> dict[str, float | str | None]:
        sound = np.concatenate([np.empty(0, np.float32), *self._samples])
        if not sound.any():
            return {"detected_language": None, "language_probability": None}
        language, probability, _ = self._model.detect_language(sound)
        return {"detected_language": language, "language_probability": round(probability, DIGITS)}


@cache
def _load(name: str) -> tuple[Any, str]:
    """The model, one for all shards of a process, and the SHA-256 of its weights. One thread, as a reader has one CPU.

    Raises MissingPackage, and ValueError for a model that cannot be loaded or knows one language only.
    """
    whisper = require("faster_whisper", "signals")
    if name.startswith((".", "/", "~")) and not os.path.isdir(name):
        raise ValueError(f"{_KEY}: {name} is no folder")
    try:
        folder = name if os.path.isdir(name) else whisper.download_model(name)
        model = whisper.WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=1)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{_KEY}: {name} cannot be loaded: {' '.join(str(error).split())}") from error
    if not model.model.is_multilingual:
        raise ValueError(f"{_KEY}: {name} knows English only: name a multilingual Whisper model")
    return model, file_sha256(Path(folder) / "model.bin")
