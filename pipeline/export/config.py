"""The configuration of an export: typed, strict and frozen, like the configuration of a run.

load_export_config("configs/export_tts.yaml", ["filters.min_seconds=1"], {"export": {"to": "moss-tts", …}})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.input_config import SplitName
from pipeline.yaml_config import ConfigError, Section, as_tuple, read_document, validate

TEXT, AUDIO, REFERENCE = "{text}", "{audio}", "{reference}"


def _ascending(limits: tuple[float, ...]) -> tuple[float, ...]:
    if not limits or any(later <= limit for limit, later in zip((0.0, *limits), limits, strict=False)):
        raise ValueError("limits are seconds above 0, in ascending order")
    return limits


FormatName = Literal["moss-tts", "tokens", "megatron", "nemo", "lhotse", "webdataset", "litdata", "mds", "lance"]
PromptField = Literal["text", "instruction", "quality", "sound_event", "ambient_sound"]
Limits = Annotated[tuple[float, ...], BeforeValidator(as_tuple), AfterValidator(_ascending)]
Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(as_tuple)]
Token = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class DatasetConfig(Section):
    """The dataset of codes that is exported."""

    uri: Annotated[str, Field(min_length=1)]
    """Its folder: a local path or any fsspec URI."""
    partial: bool = False
    """Export the committed shards of a dataset that is not complete."""
    num_quantizers: Annotated[int, Field(ge=1)] | None = None
    """RVQ layers to export, from the first; all of the dataset's by default."""


class TargetConfig(Section):
    """What to write, and where."""

    to: FormatName
    """The format."""
    uri: Annotated[str, Field(min_length=1)]
    """Folder of the export: a local path or any fsspec URI."""
    file_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    """A file is closed when it holds about this much. Memory holds a few files."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that write parts, each with its own memory. The files do not depend on their number."""


class FilterConfig(Section):
    """Which rows are left out. They are counted by reason."""

    min_seconds: Annotated[float, Field(ge=0)] | None = None
    """Shorter clips are left out."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Longer clips are left out."""
    languages: Names | None = None
    """Only clips in these languages, spelled as in the column `language`."""
    require_text: bool = False
    """Leave out clips without a transcript. Formats that need transcripts always do."""
    min_characters_per_second: Annotated[float, Field(ge=0)] | None = None
    """Fewer characters of text per second are left out: the transcript seems to miss parts of the clip."""
    max_characters_per_second: Annotated[float, Field(gt=0)] | None = None
    """More characters of text per second are left out: the clip seems to miss parts of the transcript."""
    max_silence: Fraction | None = None
    """Largest fraction of samples below -60 dBFS."""
    max_clipping: Fraction | None = None
    """Largest fraction of samples at full scale."""
    where: str | None = None
    """A condition over columns and metadata in SQL, such as `dnsmos > 3.2 and snr > 15`. Clips of which it does not
    hold, and those that lack a value for it, are left out."""
    reject_lists: Names = ()
    """Text files with one id of a clip per line: these clips are left out."""


class SplitConfig(Section):
    """Training, validation and test splits. By default the splits of the dataset are kept."""

    shares: Annotated[dict[SplitName, Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None
    """Shares of new splits by name, such as {train: 98, validation: 1, test: 1}."""
    by: Literal["clip", "speaker"] = "clip"
    """speaker: all clips of a speaker are in one split, and clips without a speaker are left out."""
    seed: int = 0
    """A different seed assigns clips differently."""


class ReferenceConfig(Section):
    """References: for each clip a second clip of the same speaker, to clone the voice from."""

    enabled: bool = False
    """Whether to look for references. The codes of the dataset are then read twice."""
    required: bool = False
    """Leave out clips without a reference."""
    min_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Shorter clips are not used as references."""
    max_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Longer clips are not used as references."""
    candidates: Annotated[int, Field(ge=2)] = 4
    """Clips per speaker that are used as references, drawn by hash."""
    seed: int = 0
    """A different seed draws different references."""


class TextConfig(Section):
    """How transcripts are written."""

    normalize: Literal["none", "basic", "whisper"] = "none"
    """basic: lower case, no punctuation, no bracketed remarks, letters and accents kept. whisper: the rules by which
    Whisper is scored: in English, spelling, contractions and numbers are unified; other languages are as in basic."""


class MossTtsConfig(Section):
    """JSONL for the finetuning of MOSS-TTS."""

    form: Literal["tts", "realtime", "ttsd"] = "tts"
    """tts: a clip on each line, for MOSS-TTS, MOSS-VoiceGenerator and MOSS-SoundEffect. realtime: a dialogue of turns,
    each with its codes. ttsd: a dialogue as one text and the codes of its turns end to end."""
    conversation: str | None = None
    """realtime, ttsd: the field of the source's metadata that clips of a dialogue have in common, or source for the
    parts of one file. Clips that follow each other with the same value are turns. By default each clip is alone."""
    need: Annotated[tuple[PromptField, ...], BeforeValidator(as_tuple)] = ("text",)
    """tts: what a clip must have, else it is left out: [ambient_sound] for MOSS-SoundEffect, [text, instruction] for
    MOSS-VoiceGenerator."""
    fields: dict[PromptField, str] = Field(default_factory=dict)
    """tts: where fields of the prompt come from: a field of the source's metadata, text or labels, such as
    {ambient_sound: caption}. By default metadata of the same name."""
    languages: dict[str, str] = Field(default_factory=dict)
    """Names to write for languages, such as {en: English, zh: Chinese}: models from v1.5 on expect full names."""
    tokens: bool = False
    """Write `tokens`, the number of frames, from which the model learns to keep to a length."""
    reference_field: Literal["ref_audio", "reference"] = "ref_audio"
    """How a reference is written: ref_audio and ref_audio_codes, or the lists reference and reference_audio_codes."""


class TokensConfig(Section):
    """Token sequences for language models."""

    layout: Literal["flat", "delay", "parallel"] = "flat"
    """flat: one stream, all codes of a frame, then the next frame. delay: one stream of text and one per RVQ layer,
    each layer one step later than the one before. parallel: the same streams without delay."""
    tokenizer: str | None = None
    """A tokenizer.json of the Hugging Face tokenizers library, or a folder with one."""
    template: Annotated[tuple[Token, ...], BeforeValidator(as_tuple)] = (TEXT, AUDIO)
    """The parts of a document, in order: {text}, {audio}, {reference}, and special tokens by id or by their name in the
    tokenizer."""
    text_offset: Annotated[int, Field(ge=0)] = 0
    """This number is added to every id of the tokenizer."""
    audio_offset: Annotated[int, Field(ge=0)] | None = None
    """Id of code 0 of layer 0. By default after the ids of the text in flat, and 0 in the other layouts."""
    separate_layers: bool = True
    """flat: whether each layer has its own ids, codebook_size after those of the layer before."""
    delays: Numbers | None = None
    """delay: delay of each layer in steps; by default 0, 1, 2, …"""
    audio_slot: Token | None = None
    """delay, parallel: token in the text stream beside codes."""
    delay_slot: Token | None = None
    """delay: token in the text stream after the last frame, while delayed layers end; by default audio_slot."""
    reference_slot: Token | None = None
    """delay, parallel: token in the text stream beside the codes of the reference; by default audio_slot."""
    audio_pad: Annotated[int, Field(ge=0)] | None = None
    """delay, parallel: token in a code stream without a code. By default the id after its last code."""
    sequence_length: Annotated[int, Field(ge=1)] | None = None
    """Steps per sequence; by default every document is one sequence of its own length."""
    pack: Literal["whole", "cut"] = "whole"
    """whole: documents are not cut; one that is longer than a sequence is left out. cut: documents are laid end to end
    and cut at the ends of sequences."""
    pad: Token | None = None
    """Token that fills the end of a sequence in the text stream; code streams have audio_pad."""
    storage: Literal["parquet", "npy"] = "parquet"
    """parquet: one row per sequence. npy: arrays that can be mapped into memory, each with an index beside it."""


class AsrConfig(Section):
    """Manifests for speech recognition."""

    codes: bool = True
    """Whether to write codes; otherwise only text and durations are written."""
    buckets: Annotated[int, Field(ge=2)] | Limits | None = None
    """Folders for clips of similar length: their number, so that each has equal hours, or their limits in seconds."""
    cuts: Literal["shar", "jsonl"] = "shar"
    """lhotse: shar, or plain JSONL with the offset of each line beside it, in which any cut is found at once."""


class SamplesConfig(Section):
    """Samples for loaders that stream: webdataset, litdata, mds, lance."""

    join: str | None = None
    """Join clips to a document, end to end: those that follow each other in a shard and have the same value in this
    field of the source's metadata, or with source those of the same file. By default each clip is a sample."""


class ExportConfig(Section):
    """The configuration of an export."""

    dataset: DatasetConfig
    export: TargetConfig
    filters: FilterConfig = FilterConfig()
    splits: SplitConfig = SplitConfig()
    references: ReferenceConfig = ReferenceConfig()
    text: TextConfig = TextConfig()
    moss_tts: MossTtsConfig = MossTtsConfig()
    tokens: TokensConfig = TokensConfig()
    asr: AsrConfig = AsrConfig()
    samples: SamplesConfig = SamplesConfig()


def load_export_config(path: str | Path | None, overrides: Sequence[str], given: Mapping[str, Any]) -> ExportConfig:
    """Read a YAML file (or none), apply `section.key=value` overrides, then the keys that are `given`, by section.

    Raises ConfigError for a file that cannot be read and for every key or value that is not allowed.
    """
    document = read_document(path, overrides)
    for section, keys in given.items():
        document[section] = {**(document.get(section) or {}), **keys}
    config = validate(ExportConfig, document, str(path or "configuration"))
    if (
        config.export.to in ("tokens", "megatron")
        and REFERENCE in config.tokens.template
        and not config.references.enabled
    ):
        raise ConfigError("tokens.template has {reference}: set references.enabled=true")
    return config
