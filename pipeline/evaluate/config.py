"""The configuration of an evaluation: typed, strict and frozen, like that of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config import ModelConfig, PrepareConfig
from pipeline.evaluate.metrics import METRICS
from pipeline.evaluate.models import MODEL_METRICS
from pipeline.input_config import InputConfig
from pipeline.yaml_config import Section, as_tuple, one_or_several, read_document, validate

DatasetName = Literal["librispeech", "aishell2", "audioset", "musdb"]
CLIPS_PER_SHARD = 100
"""Fewer than in tokenizing: a clip takes seconds to measure, and a shard that was begun is lost where a run ends."""
DEFAULT_METRICS = ("stoi", "pesq_nb", "pesq_wb", "mel", "stft", "si_sdr")


class SpeakerConfig(Section):
    """The model that compares voices, for the metric `sim`."""

    model: str | None = None
    """A speaker verification model of `transformers` (WavLMForXVector and the like): a local folder or a hub repo."""


class RecognizerConfig(Section):
    """The model that reads speech, for the metrics `wer` and `cer`."""

    model: str | None = None
    """A Whisper model for faster-whisper: a folder in the format of CTranslate2, or a hub name such as large-v3."""
    language: str | None = None
    """The language that is spoken, such as en; by default the column language, and else what the model hears."""


class EvaluationConfig(Section):
    """What is measured, and where the results go."""

    uri: Annotated[str, Field(min_length=1)]
    """Folder of the results: a local path or any fsspec URI."""
    num_quantizers: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = ()
    """Numbers of quantizers to decode with. By default 1, 2, 4, 8, … and all that the codec has."""
    metrics: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = DEFAULT_METRICS
    """Names of metrics: docs/evaluate.md lists them."""
    published: DatasetName | None = None
    """Data whose published figures stand beside ours in the table."""
    max_clips: Annotated[int, Field(ge=1)] | None = None
    """Clips of each shard to measure, evenly spaced; by default all."""
    workers: Annotated[int, Field(ge=1)] | Literal["auto", "ray"] = "auto"
    """Processes that measure: a number of them on this machine; auto is one, and ray uses a whole cluster."""
    seed: int = 0
    """Of the bootstrap."""

    @model_validator(mode="after")
    def _metrics_are_known(self) -> EvaluationConfig:
        known = [*METRICS, *MODEL_METRICS]
        for name in self.metrics:
            if name not in known:
                raise ValueError(f"no metric {name!r}: there are {', '.join(known)}")
        return self


class EvaluateConfig(Section):
    """A whole evaluation: of codecs on `input`, or of outputs of codes on the sources that they were made of."""

    input: InputConfig | None = None
    """The audio. Leave it out for `dataset`."""
    dataset: Annotated[tuple[str, ...], BeforeValidator(one_or_several)] = ()
    """An output of `tokenize`: its codes are decoded and compared with its sources. Or several of the same sources."""
    models: Annotated[tuple[ModelConfig, ...], BeforeValidator(as_tuple)] = ()
    """The codecs, side by side; with `dataset`, those that encode its sources here."""
    prepare: PrepareConfig = PrepareConfig(max_seconds=600.0)
    """Clips are in memory whole, so they are limited here; longer ones are counted as rejects."""
    evaluate: EvaluationConfig
    speakers: SpeakerConfig = SpeakerConfig()
    recognizer: RecognizerConfig = RecognizerConfig()

    @model_validator(mode="after")
    def _one_source(self) -> EvaluateConfig:
        if (self.input is None) != bool(self.dataset):
            raise ValueError("give either input (audio, with models) or dataset (an output of codes)")
        if self.input is not None and not self.models:
            raise ValueError("models: name at least one codec, such as [{name: cat-tiny}]")
        if "sim" in self.evaluate.metrics and self.speakers.model is None:
            raise ValueError("the metric sim needs speakers.model; sim_resemblyzer runs without")
        if {"wer", "cer"} & set(self.evaluate.metrics) and self.recognizer.model is None:
            raise ValueError("the metrics wer and cer need recognizer.model; wer_pocketsphinx runs without")
        return self


def load_evaluate_config(path: str | Path | None, overrides: Sequence[str], given: Mapping[str, Any]) -> EvaluateConfig:
    """A YAML file (or nothing) with `section.key=value` overrides, and above both what is `given`.

    Raises ConfigError for a file that cannot be read and for every key or value that is not allowed.
    """
    document = read_document(path, overrides)
    for section, values in given.items():
        if isinstance(values, dict) and isinstance(document.get(section), dict):
            document[section] = {**document[section], **values}
        else:
            document[section] = values
    if isinstance(document.get("input"), dict):
        document["input"] = {"clips_per_shard": CLIPS_PER_SHARD, **document["input"]}
    return validate(EvaluateConfig, document, "the command line" if path is None else str(path))
