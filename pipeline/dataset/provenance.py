"""What an output was made with: the record of its run, and whether another run may continue it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline import schema
from pipeline.codecs import Codebook, CodecDescription, CodecError, CodecSource, find_codec, precision_of
from pipeline.codecs.protocol import MOSS
from pipeline.config import Config
from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.items import stable_hash
from pipeline.schema import CodeColumns
from pipeline.steps.clip_signals import Signals, describe_signals, signal_packages, with_labels, without_names
from pipeline.steps.read.pauses import Splitter, describe_split

RUN_VERSION = 1
WAVEFORM_VERSION = 2
"""How a source becomes a waveform. Another way of resampling or mixing, which gives other bits, is another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The codec, as far as it is known without loading the weights."""

    name: str
    revision: str | None
    weights_sha256: str
    config_hash: str
    codec: CodecDescription

    @property
    def trained(self) -> bool:
        return self.codec.trained

    @property
    def sample_rate(self) -> int:
        return self.codec.sample_rate

    @property
    def channels(self) -> int:
        return self.codec.channels

    @property
    def samples_per_frame(self) -> int:
        return self.codec.samples_per_frame

    @property
    def num_quantizers(self) -> int:
        return len(self.codec.codebooks)

    @property
    def codebook_size(self) -> int:
        """Of the largest codebook."""
        return max(codebook.size for codebook in self.codec.codebooks)

    @property
    def label(self) -> str:
        """The name of the model. Of a local folder it is the last part of the path, so that no path gets into data
        files."""
        return self.name.rpartition("/")[2] if self.name.startswith("/") else self.name

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        identity = {name: getattr(self, name) for name in ("name", "revision", "weights_sha256", "config_hash")}
        return identity | self.codec.to_json()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelInfo:
        """The inverse of `to_json`. Raises ValueError, LookupError or TypeError for anything else."""
        identity = {name: values[name] for name in ("name", "revision", "weights_sha256", "config_hash")}
        return cls(**identity, codec=CodecDescription.from_json(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Contents of run.json."""

    run_version: int
    model: ModelInfo
    dtype: str
    num_quantizers: int
    """Number of RVQ layers that are written."""
    codes_schema: str
    prepare: Mapping[str, Any]
    input: Mapping[str, Any]
    versions: Mapping[str, str]
    waveform_version: int = 1
    """WAVEFORM_VERSION of the code that made it; 1 where it is not recorded."""
    plan_sha256: str = ""
    """SHA-256 of the output's plan; empty until there is one."""
    unreadable_folders: int = 0
    """Folders that could not be listed when the plan was made, and were left out."""
    latents: bool = False
    """Whether there is a column of latents."""
    signals: Signals = field(default_factory=dict)
    """What else was measured of each clip, and by what: see pipeline/steps/clip_signals."""

    split_at_pauses: Mapping[str, Any] = field(default_factory=dict)
    """What long recordings were cut by, if they were."""

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the rows. It does not depend on where inputs, weights and outputs are."""
        return stable_hash(json.dumps(self._decisive(), sort_keys=True))

    def differences(self, other: RunRecord) -> list[str]:
        """Why this run cannot continue the output of `other`, a line for each difference. Empty if it can."""
        here = self._decisive() | _flatten("input", self.input) | {"waveform_version": self.waveform_version}
        there = other._decisive() | _flatten("input", other.input) | {"waveform_version": other.waveform_version}
        return list_differences(there, here, "the output has {!r}, this run {!r}")

    @property
    def codebooks(self) -> tuple[Codebook, ...]:
        """The codebooks that are written."""
        return self.model.codec.codebooks[: self.num_quantizers]

    @property
    def code_columns(self) -> CodeColumns:
        """The columns of codes in data files."""
        sizes = tuple(codebook.size for codebook in self.codebooks)
        codec = self.model.codec
        return CodeColumns(sizes, codec.scales, codec.prefix, self.latents, tuple(self.signals))

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns of data files that hold one value for a clip: what can be shown, loaded and filtered by."""
        signals = schema.signal_definitions(self.signals)
        return (*schema.clip_columns(self.codes_schema), *(column["name"] for column in signals))

    def file_metadata(self) -> dict[str, str]:
        """The entries in the footer of every data file."""
        codec = self.model.to_json().get("codec")
        return {
            "moss_tok.model": self.model.label,
            "moss_tok.model_revision": self.model.revision or "",
            "moss_tok.model_weights_sha256": self.model.weights_sha256,
            "moss_tok.model_trained": json.dumps(self.model.trained),
            "moss_tok.dtype": self.dtype,
            "moss_tok.num_quantizers": str(self.num_quantizers),
            "moss_tok.codebook_size": str(self.model.codebook_size),
            "moss_tok.sample_rate": str(self.model.sample_rate),
            "moss_tok.channels": str(self.model.channels),
            "moss_tok.samples_per_frame": str(self.model.samples_per_frame),
            "moss_tok.prepare": json.dumps(dict(self.prepare), sort_keys=True),
            **({} if codec is None else {"moss_tok.codec": json.dumps(codec, sort_keys=True)}),
            **({"moss_tok.signals": json.dumps(with_labels(self.signals), sort_keys=True)} if self.signals else {}),
            "moss_tok.schema": self.codes_schema,
            "moss_tok.fingerprint": self.fingerprint,
            "moss_tok.versions": json.dumps(dict(self.versions), sort_keys=True),
        }

    def to_json(self) -> bytes:
        document = {each.name: getattr(self, each.name) for each in fields(self)}
        for optional in ("latents", "signals", "split_at_pauses"):
            if not document[optional]:  # as in the records of versions without them
                del document[optional]
        return dump_checksummed(document | {"model": self.model.to_json()})

    @classmethod
    def from_json(cls, data: bytes) -> RunRecord:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        try:
            document = load_checksummed(data)
            return cls(**document | {"model": ModelInfo.from_json(document["model"])})
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"not the record of a run of version {RUN_VERSION}: {error}") from error

    def _decisive(self) -> dict[str, Any]:
        model = {
            key: value for key, value in self.model.to_json().items() if key not in ("name", "revision", "trained")
        }
        return {
            **_flatten("model", model),
            **_flatten("prepare", self.prepare),
            "model.dtype": self.dtype,
            "model.num_quantizers": self.num_quantizers,
            "schema": self.codes_schema,
            # Absent from the fingerprints of the first version.
            **({"waveform_version": self.waveform_version} if self.waveform_version > 1 else {}),
            **({"latents": True} if self.latents else {}),
            **_flatten("signals", {name: without_names(made_by) for name, made_by in self.signals.items()}),
            **_flatten("split_at_pauses", self.split_at_pauses),
        }


def list_differences(there: Mapping[str, Any], here: Mapping[str, Any], words: str) -> list[str]:
    """A line for each key whose values differ, sorted by key.

    It has the key, and `words` with both values filled in, the one of `there` first.
    """
    return [
        f"{key}: {words.format(there.get(key), here.get(key))}"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]


def describe_model(name: str, revision: str | None = None, codec: str | None = None) -> ModelInfo:
    """Read the configuration of a model and hash its weights, without building it. `codec` names its family where
    config.json does not. Raises CodecError for a model of no known family.
    """
    return model_info(find_codec(name, revision, codec))


def model_info(source: CodecSource) -> ModelInfo:
    """What is known of a model that was found."""
    return ModelInfo(
        name=source.name,
        revision=source.checkpoint.revision,
        weights_sha256=source.checkpoint.weights_sha256,
        config_hash=source.config_hash,
        codec=source.description,
    )


def source_of(record: RunRecord, name: str | None = None) -> CodecSource:
    """The model that made an output: where its record says, or at `name`. Raises what `find_codec` raises."""
    family = record.model.codec.family
    return find_codec(name or record.model.name, None if name else record.model.revision, family)


def record_run(config: Config, on_gpu: bool = False) -> RunRecord:
    """The record of a run of this configuration, which encodes on GPUs or not.

    Raises CodecError if it asks for codebooks or a precision that the model has not.
    """
    source = find_codec(config.model.name, config.model.revision, config.model.codec)
    dtype = precision_of(source.family, config.model.dtype, on_gpu)
    wanted = len(source.description.first(config.model.num_quantizers, source.name))
    model = model_info(source)
    if config.model.max_seconds is not None and not source.description.streams:
        model = replace(model, codec=replace(model.codec, max_seconds=config.model.max_seconds))
    if config.output.latents and source.description.family != MOSS:
        raise CodecError(f"output.latents: only MOSS codecs have them, and {source.name} is of {source.family.name}")
    signals = describe_signals(config.signals)
    split = describe_split(config.input.split_at_pauses)
    packages = (*source.family.packages, *signal_packages(signals), *(Splitter.packages if split else ()))
    return RunRecord(
        run_version=RUN_VERSION,
        model=model,
        dtype=dtype,
        num_quantizers=wanted,
        codes_schema=schema.CODES,
        prepare=config.prepare.model_dump(mode="json"),
        input=config.input.model_dump(mode="json", exclude={"unreadable"}),  # which the plan has settled
        versions=software_versions() | {name: version(name) for name in packages},
        waveform_version=WAVEFORM_VERSION,
        latents=config.output.latents,
        signals=signals,
        split_at_pauses=split,
    )


def software_versions() -> dict[str, str]:
    """Versions of the software that decodes, resamples, encodes and writes."""
    names = ("moss-tok", "torch", "soundfile", "av", "numpy", "pyarrow")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def installed_version(name: str) -> str | None:
    """The version of a distribution, or of Python, as `software_versions` says it; None if it is not installed."""
    try:
        return platform.python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return None


def _flatten(prefix: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in mapping.items()}
