"""The configuration of an export: typed, strict and frozen, like that of a run.

load_export_config("configs/export_tts.yaml", ["filters.min_seconds=1"], {"export": {"to": "moss-tts", …}})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.config import SplitName
from pipeline.yaml_config import ConfigError, Section, read_document, validate

TEXT, AUDIO, REFERENCE = "{text}", "{audio}", "{reference}"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _ascending(limits: tuple[float, ...]) -> tuple[float, ...]:
    if not limits or any(later <= limit for limit, later in zip((0.0, *limits), limits, strict=False)):
        raise ValueError("limits in seconds ascend from above 0")
    return limits


Limits = Annotated[tuple[float, ...], BeforeValidator(_as_tuple), AfterValidator(_ascending)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Token = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class DatasetConfig(Section):
    """The dataset of codes that is exported."""

    uri: Annotated[str, Field(min_length=1)]
    """Its folder: a local path or any fsspec URI."""
    partial: bool = False
    """Export what is committed of a dataset that is not complete."""
    num_quantizers: Annotated[int, Field(ge=1)] | None = None
    """RVQ layers to export, from the first; all of the dataset's by default."""


class TargetConfig(Section):
    """What to write, and where."""

    to: Literal["moss-tts", "tokens", "nemo", "lhotse"]
    """The format."""
    uri: Annotated[str, Field(min_length=1)]
    """Folder of the export: a local path or any fsspec URI."""
    file_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    """A file is closed when it holds about this much; also the measure of memory, of which a few files are used."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that write parts, each with memory of its own. What they write does not depend on their number."""


class FilterConfig(Section):
    """Which rows are left out. Each is counted by its reason."""

    min_seconds: Annotated[float, Field(ge=0)] | None = None
    """Shorter clips are left out."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Longer clips are left out."""
    languages: Names | None = None
    """Only clips of these languages, as the column `language` spells them."""
    require_text: bool = False
    """Leave out clips without a transcript. Formats that cannot do without always do."""
    min_characters_per_second: Annotated[float, Field(ge=0)] | None = None
    """Fewer characters of text for each second of sound: parts of the clip are not in its transcript."""
    max_characters_per_second: Annotated[float, Field(gt=0)] | None = None
    """More characters of text for each second of sound: parts of the transcript are not in the clip."""
    max_silence: Fraction | None = None
    """Largest fraction of samples below -60 dBFS."""
    max_clipping: Fraction | None = None
    """Largest fraction of samples at full scale."""
    reject_lists: Names = ()
    """Text files with the id of a clip on each line: those clips are left out."""


class SplitConfig(Section):
    """Training, validation and test. By default the splits of the dataset stay as they are."""

    shares: Annotated[dict[SplitName, Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None
    """Names of splits with their shares, such as {train: 98, validation: 1, test: 1}."""
    by: Literal["clip", "speaker"] = "clip"
    """speaker puts all clips of a speaker into one split, and leaves out clips without a speaker."""
    seed: int = 0
    """Another seed, another assignment."""


class ReferenceConfig(Section):
    """A second clip of the same speaker for each clip, to clone the voice from."""

    enabled: bool = False
    """Whether to look for references. The codes of the dataset are then read twice."""
    required: bool = False
    """Leave out clips for which there is none."""
    min_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Shorter clips are no references."""
    max_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Longer clips are no references."""
    candidates: Annotated[int, Field(ge=2)] = 4
    """Clips of each speaker that serve as references, drawn by hash."""
    seed: int = 0
    """Another seed, another draw."""


class TextConfig(Section):
    """The text that is written."""

    normalize: Literal["none", "basic", "whisper"] = "none"
    """basic: lower case, no punctuation, no bracketed remarks, letters and accents kept. whisper: the rules by which
    Whisper is scored: in English, spelling, contractions and numbers are unified; other languages are as in basic."""


class MossTtsConfig(Section):
    """The JSONL that the finetuning of MOSS-TTS reads."""

    languages: dict[str, str] = Field(default_factory=dict)
    """Other names for languages, such as {en: English, zh: Chinese}: models from v1.5 on take full names."""
    tokens: bool = False
    """Write `tokens`, the number of frames, by which the model learns to keep to a length."""
    reference_field: Literal["ref_audio", "reference"] = "ref_audio"
    """How a reference is written: ref_audio and ref_audio_codes, or the lists reference and reference_audio_codes."""


class TokensConfig(Section):
    """Token sequences for language models."""

    layout: Literal["flat", "delay", "parallel"] = "flat"
    """flat: one stream, the codes of a frame after each other. delay: a stream of text and one for each RVQ layer, each
    layer a step later than the one before. parallel: the same without delay."""
    tokenizer: str | None = None
    """tokenizer.json of the Hugging Face tokenizers library, or a folder that holds it."""
    template: Annotated[tuple[Token, ...], BeforeValidator(_as_tuple)] = (TEXT, AUDIO)
    """What a document is made of, in order: {text}, {audio}, {reference}, and special tokens by their id or their name
    in the tokenizer."""
    text_offset: Annotated[int, Field(ge=0)] = 0
    """Added to every id of the tokenizer."""
    audio_offset: Annotated[int, Field(ge=0)] | None = None
    """Id of code 0 of layer 0. By default flat begins after the text's ids, and the others at 0."""
    separate_layers: bool = True
    """flat: whether each layer has ids of its own, codebook_size after those of the layer before."""
    delays: Numbers | None = None
    """delay: steps by which each layer is late; 0, 1, 2, … by default."""
    audio_slot: Token | None = None
    """delay, parallel: what the text stream holds beside codes."""
    delay_slot: Token | None = None
    """delay: what it holds in the steps after the last frame, while late layers end; audio_slot by default."""
    reference_slot: Token | None = None
    """delay, parallel: what it holds beside the codes of the reference; audio_slot by default."""
    audio_pad: Annotated[int, Field(ge=0)] | None = None
    """delay, parallel: what a code stream holds where it has no code. By default the id after its last code."""
    sequence_length: Annotated[int, Field(ge=1)] | None = None
    """Steps of a sequence; by default every document is a sequence of its own length."""
    pack: Literal["whole", "cut"] = "whole"
    """whole: documents are not cut, and what does not fit a sequence is left out. cut: they are laid end to end."""
    pad: Token | None = None
    """What fills the end of a sequence (in the text stream; code streams have audio_pad)."""
    storage: Literal["parquet", "npy"] = "parquet"
    """parquet: a row is a sequence. npy: arrays to map into memory, with an index beside each."""


class AsrConfig(Section):
    """Manifests for speech recognition."""

    codes: bool = True
    """Whether to write codes, or text and durations alone."""
    buckets: Annotated[int, Field(ge=2)] | Limits | None = None
    """Folders for clips of similar length: their number, for equal hours in each, or their limits in seconds."""


class ExportConfig(Section):
    """A whole export."""

    dataset: DatasetConfig
    export: TargetConfig
    filters: FilterConfig = FilterConfig()
    splits: SplitConfig = SplitConfig()
    references: ReferenceConfig = ReferenceConfig()
    text: TextConfig = TextConfig()
    moss_tts: MossTtsConfig = MossTtsConfig()
    tokens: TokensConfig = TokensConfig()
    asr: AsrConfig = AsrConfig()


def load_export_config(path: str | Path | None, overrides: Sequence[str], given: Mapping[str, Any]) -> ExportConfig:
    """A YAML file (or nothing) with `section.key=value` overrides, and above both what is `given`, section by section.

    Raises ConfigError for a file that cannot be read and for every key or value that is not allowed.
    """
    document = read_document(path, overrides)
    for section, keys in given.items():
        document[section] = {**(document.get(section) or {}), **keys}
    config = validate(ExportConfig, document, str(path or "configuration"))
    if config.export.to == "tokens" and REFERENCE in config.tokens.template and not config.references.enabled:
        raise ConfigError("tokens.template has {reference}: set references.enabled=true")
    return config
