"""The configuration of a run: typed, strict and frozen.

    load_config("configs/demo.yaml", ["model.dtype=bfloat16", "cluster.actors=2"])

A fault is a ConfigError of pipeline/yaml_config.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from moss_tok import DEFAULT_MODEL
from pipeline.input_config import InputConfig, address
from pipeline.signal_config import SignalsConfig
from pipeline.yaml_config import Section, one_or_several, read_document, validate

LanguageCode = Annotated[str, Field(pattern="^[a-z]{2,3}$")]


class OutputConfig(Section):
    """Where and how to write."""

    uri: Annotated[str, Field(min_length=1), AfterValidator(address)]
    """Folder of the dataset: a local path or any fsspec URI."""
    row_group_rows: Annotated[int, Field(ge=1)] = 10_000
    """Rows in a Parquet row group: larger ones store codes tighter, smaller ones read finer."""
    latents: bool = False
    """Also store what the encoder gives before quantizing, for models of continuous features: the column latents. Only
    for MOSS codecs. Of the released one it takes about 40 times the bytes of the codes."""


class ModelConfig(Section):
    """The codec."""

    name: Annotated[str, Field(min_length=1)] = DEFAULT_MODEL
    """Hub repo, local folder, or an embedded codec to try things out: cat-speech (small, CC-BY-SA-3.0) or cat-tiny
    (untrained)."""
    codec: str | None = None
    """Family of the codec, where the model's config.json does not tell: moss, mimi, dac, … (docs/codecs.md)."""
    revision: str | None = None
    """Commit, tag or branch of the hub repo."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the linear layers. auto is bfloat16 on a GPU and float32 on a CPU; an output that was begun keeps
    its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto uses the GPU that Ray assigns, else the CPU."""
    static_frames: Annotated[int, Field(ge=1)] | None = None
    """Frames in one group of rows on a GPU, where every product has this one size; 1024 by default. The last group of a
    batch is padded. Another size may give other codes."""
    compile: bool | None = None
    """Whether layers, and the search for codes, are compiled on a GPU: fewer passes over its memory, and other
    roundings. By default the search is, and layers are in bfloat16."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Longest clip for a codec that cannot encode a clip in parts and so needs memory for all of it; longer ones are
    rejected. 600 by default. MOSS has no such limit."""
    num_quantizers: Annotated[int, Field(ge=1)] | None = None
    """RVQ layers to write. By default all layers of the model."""


class OneOfModels(ModelConfig):
    """One codec of several that tokenize the same clips."""

    folder: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None = None
    """Folder of its dataset, inside output.uri. By default the last part of the model's name."""

    @property
    def folder_name(self) -> str:
        return self.folder or self.name.rstrip("/").rpartition("/")[2]


def _as_models(values: Any) -> Any:
    if not isinstance(values, list | tuple):
        raise ValueError("give a list of names of models, or of sections like model")
    return tuple({"name": value} if isinstance(value, str) else value for value in values)


class LoudnessConfig(Section):
    """The level that clips are brought to, by the rule that the training data of MOSS-TTS was made with."""

    target_dbfs: Annotated[float, Field(ge=-90, le=0)] = -20.0
    """Mean power of the whole clip in dB of full scale, measured after mixing and resampling."""
    max_gain_db: Annotated[float, Field(gt=0, le=60)] = 3.0
    """No clip is made louder or quieter by more than this."""


class PrepareConfig(Section):
    """How encoded bytes become a waveform."""

    min_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Shorter clips are rejected."""
    max_seconds: Annotated[float, Field(gt=0)] = 86_400.0
    """Longer clips are rejected. Any length takes the same memory."""
    max_channels: Annotated[int, Field(ge=1)] = 32
    """Clips of more channels are rejected. The others are mixed to the channels of the model."""
    loudness: LoudnessConfig | None = None
    """Null leaves levels as they are. {} or {target_dbfs: -20, max_gain_db: 3} brings each clip to a level by one gain,
    which is in the column gain_db of its row."""

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> PrepareConfig:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds:g} is above max_seconds {self.max_seconds:g}")
        return self


class BatchConfig(Section):
    """How clips share the encoder. Codes do not depend on any of this."""

    max_frames: Annotated[int, Field(ge=1)] = 2048
    """Frames in one batch (12.5 per second: 2048 are 164 s). Longer clips go through the streaming encoder. A GPU works
    in groups of 1024, so use a multiple of that."""


class ClusterConfig(Section):
    """How Ray runs it."""

    address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which a submitted job has, else a local Ray of this machine."""
    actors: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Replicas of the codec. auto: one for each GPU, or on a cluster without GPUs one for every two CPUs, and more or
    fewer as nodes join or leave; an autoscaler is asked for GPUs as long as it can add some. A number is an upper
    limit, and replicas for which there is no capacity yet start when there is."""
    cpus_per_actor: Annotated[float, Field(ge=0)] = 1.0
    """CPUs that an actor reserves; also its threads, where there is no GPU."""
    gpus_per_actor: Annotated[float, Field(gt=0)] | None = None
    """GPUs that an actor reserves; 0.5 puts two on one. By default 1 where it computes on a GPU. With a `model.device`
    of cpu it reserves what is set here."""
    shards_per_actor: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Shards open at the same time in an actor. Each is read by one CPU. auto: one for each CPU that is left for
    reading, and one more, so that the next shard is read while one is encoded: at least 2, at most 64."""


class RunConfig(Section):
    """When a run stops, and how it logs. These can change between two runs of one output."""

    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Attempts before a shard is reported as failed. An attempt that ended because its node is gone does not count."""
    max_reject_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The run stops if a larger fraction of its clips is rejected, once it has done 1,000 clips; 1 never stops it."""
    stall_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds that a decoder may take for one block, about ten seconds of audio. One that takes longer is ended with
    its process."""
    max_missing_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """A shard is not committed if a larger fraction of its clips is missing, and more than two, or all of several: an
    outage takes many files at once. It is tried again and then reported as failed. 1 rejects them like single files."""
    retry_rejects: Annotated[tuple[Literal["missing", "unreachable"], ...], BeforeValidator(one_or_several)] = (
        "missing",
        "unreachable",
    )
    """Reasons of rejects that may pass. If the file of such a reject is there again, the shard is done again and
    replaced. [] leaves every committed shard as it is."""
    machines: Literal["same", "any"] = "same"
    """Kinds of machine that may encode: GPU, or CPU with its instructions, and kernels and torch. `same` refuses a run
    on another kind than the output was begun on, and in a mixed cluster lets nodes of other kinds only read and decode.
    `any` mixes kinds, between which a few codes differ; each manifest says what made it."""
    log_format: Literal["text", "json"] = "text"
    """How the driver and the actors log: lines for people, or one JSON object per line for machines."""


class CardConfig(Section):
    """What the dataset card says and the pipeline cannot know. It can be changed later: the same command writes the
    card of a finished output again."""

    pretty_name: str | None = None
    """Title of the dataset."""
    license: str | None = None
    """Licence of the codes in the hub's spelling, such as cc-by-4.0, cc0-1.0 or other."""
    source: str | None = None
    """Where the audio comes from: a link, a citation or a sentence of Markdown."""
    language: Annotated[tuple[LanguageCode, ...], BeforeValidator(one_or_several)] = ()
    """ISO 639 codes, such as [en, fr]. By default those that the column language has in the sampled shards."""


class Config(Section):
    """The configuration of a whole run."""

    renamed: ClassVar[Mapping[str, str]] = {
        "cluster.log_format": "run.log_format",
        "cluster.max_attempts": "run.max_attempts",
        "cluster.max_reject_fraction": "run.max_reject_fraction",
        "prepare.stall_seconds": "run.stall_seconds",
    }

    input: InputConfig
    output: OutputConfig
    model: ModelConfig = ModelConfig()
    models: Annotated[tuple[OneOfModels, ...], BeforeValidator(_as_models)] = ()
    """Several codecs instead of `model`: each clip is read and decoded once, and each codec has a dataset of its own in
    a folder of output.uri."""
    prepare: PrepareConfig = PrepareConfig()
    signals: SignalsConfig = SignalsConfig()
    batch: BatchConfig = BatchConfig()
    cluster: ClusterConfig = ClusterConfig()
    run: RunConfig = RunConfig()
    card: CardConfig = CardConfig()

    def of_each_model(self) -> tuple[Config, ...]:
        """The configuration of each codec's own dataset: this one, unless there are `models`."""
        return tuple(map(self._of, self.models)) or (self,)

    def _of(self, model: OneOfModels) -> Config:
        output = self.output.model_copy(update={"uri": f"{self.output.uri.rstrip('/')}/{model.folder_name}"})
        alone = ModelConfig.model_validate(model.model_dump(exclude={"folder"}))
        return self.model_copy(update={"models": (), "model": alone, "output": output})

    @model_validator(mode="after")
    def _models_go_together(self) -> Config:
        if not self.models:
            return self
        if "model" in self.model_fields_set:
            raise ValueError("model and models are both there: give one of them")
        if len({model.device for model in self.models}) > 1:
            raise ValueError("models: each actor holds all of them, so they need the same device")
        folders = [model.folder_name for model in self.models]
        for folder in folders:
            if not re.fullmatch(r"\w[\w.-]*", folder):
                raise ValueError(f"models: {folder!r} cannot be the name of a folder: give the model a folder")
            if folders.count(folder) > 1:
                raise ValueError(f"models: two datasets would be in the folder {folder}: give each model a folder")
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `section.key=value` overrides, whose values are YAML too.

    Raises ConfigError for a file that is missing or not YAML and for every key or value that is not allowed.
    """
    return parse_config(read_document(path, overrides), str(path))


def parse_config(document: dict[str, Any], where: str = "configuration") -> Config:
    """Validate a document of sections; raises ConfigError with a line for each fault."""
    return validate(Config, document, where)
