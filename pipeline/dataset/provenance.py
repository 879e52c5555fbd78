"""What an output was made with: the record of its run, and whether another run may continue it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from moss_tok.checkpoint import resolve
from pipeline import schema
from pipeline.config import Config
from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.items import stable_hash

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
    trained: bool
    sample_rate: int
    channels: int
    samples_per_frame: int
    num_quantizers: int
    codebook_size: int

    @property
    def label(self) -> str:
        """The name of the model. Of a local folder it is the last part of the path, so that no path gets into data
        files."""
        return self.name.rpartition("/")[2] if self.name.startswith("/") else self.name


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

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the rows. It does not depend on where inputs, weights and outputs are."""
        return stable_hash(json.dumps(self._decisive(), sort_keys=True))

    def differences(self, other: RunRecord) -> list[str]:
        """Why this run cannot continue the output of `other`, a line for each difference. Empty if it can."""
        here = self._decisive() | _flatten("input", self.input) | {"waveform_version": self.waveform_version}
        there = other._decisive() | _flatten("input", other.input) | {"waveform_version": other.waveform_version}
        return list_differences(there, here, "the output has {!r}, this run {!r}")

    def file_metadata(self) -> dict[str, str]:
        """The entries in the footer of every data file."""
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
            "moss_tok.schema": self.codes_schema,
            "moss_tok.fingerprint": self.fingerprint,
            "moss_tok.versions": json.dumps(dict(self.versions), sort_keys=True),
        }

    def to_json(self) -> bytes:
        return dump_checksummed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> RunRecord:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        try:
            document = load_checksummed(data)
            return cls(**document | {"model": ModelInfo(**document["model"])})
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"not the record of a run of version {RUN_VERSION}: {error}") from error

    def _decisive(self) -> dict[str, Any]:
        model = {key: value for key, value in asdict(self.model).items() if key not in ("name", "revision", "trained")}
        return {
            **_flatten("model", model),
            **_flatten("prepare", self.prepare),
            "model.dtype": self.dtype,
            "model.num_quantizers": self.num_quantizers,
            "schema": self.codes_schema,
            # Absent from the fingerprints of the first version.
            **({"waveform_version": self.waveform_version} if self.waveform_version > 1 else {}),
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


def describe_model(name: str, revision: str | None) -> ModelInfo:
    """Read the configuration of a model and hash its weights, without building it."""
    checkpoint = resolve(name, revision)
    config = checkpoint.config
    return ModelInfo(
        name=name,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        config_hash=stable_hash(json.dumps(config.to_dict(), sort_keys=True)),
        trained=config.trained,
        sample_rate=config.sampling_rate,
        channels=config.number_channels,
        samples_per_frame=config.downsample_rate,
        num_quantizers=config.quantizer.num_quantizers,
        codebook_size=config.quantizer.codebook_size,
    )


def record_run(config: Config) -> RunRecord:
    """The record of a run of this configuration. Raises ValueError if it asks for more layers than the model has."""
    model = describe_model(config.model.name, config.model.revision)
    wanted = config.model.num_quantizers or model.num_quantizers
    if wanted > model.num_quantizers:
        raise ValueError(f"model.num_quantizers: {wanted}, but {model.name} has {model.num_quantizers}")
    return RunRecord(
        run_version=RUN_VERSION,
        model=model,
        dtype=config.model.dtype,
        num_quantizers=wanted,
        codes_schema=schema.CODES,
        prepare=config.prepare.model_dump(mode="json"),
        input=config.input.model_dump(mode="json", exclude={"unreadable"}),  # which the plan has settled
        versions=software_versions(),
        waveform_version=WAVEFORM_VERSION,
    )


def software_versions() -> dict[str, str]:
    """Versions of the software that decodes, resamples, encodes and writes."""
    names = ("moss-tok", "torch", "torchaudio", "soundfile", "av", "numpy", "pyarrow")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def _flatten(prefix: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in mapping.items()}
