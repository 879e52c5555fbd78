"""The shape of a MOSS Audio Tokenizer, read from the `config.json` of a release.

Every released checkpoint (v1, v2, Nano) has the same architecture with other numbers. This file turns the keys of a
release into a frozen, checked configuration. In it every stage has its own frame rate and its attention context in
steps, so that later code never computes with seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

MAX_CONFIG_BYTES = 1 << 20


class ModelConfigError(ValueError):
    """A `config.json` that is malformed, contradictory, or asks for something that this code does not implement."""


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """A reshape between `patch_size` steps of D channels and one step of D * patch_size channels."""

    patch_size: int


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """One transformer stage. `context` is the number of keys that a query sees, its own position included."""

    input_dimension: int
    output_dimension: int
    d_model: int
    num_heads: int
    num_layers: int
    dim_feedforward: int
    max_period: float
    frame_rate: Fraction
    context: int

    @property
    def head_dim(self) -> int:
        return self.d_model // self.num_heads


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """The residual quantizer: `num_quantizers` codebooks of `codebook_size` rows of `codebook_dim` values."""

    input_dim: int
    rvq_dim: int
    output_dim: int
    num_quantizers: int
    codebook_size: int
    codebook_dim: int


ModuleConfig = PatchConfig | TransformerConfig


@dataclass(frozen=True, kw_only=True)
class MossAudioTokenizerConfig:
    """A whole codec. `source` is the content of its `config.json`, kept so that it can be written back unchanged."""

    sampling_rate: int
    downsample_rate: int
    number_channels: int
    causal_transformer_context_duration: float
    encoder: tuple[ModuleConfig, ...]
    decoder: tuple[ModuleConfig, ...]
    quantizer: QuantizerConfig
    trained: bool
    source: Mapping[str, Any]

    @property
    def sample_rate(self) -> int:
        """The older name of `sampling_rate` in the releases."""
        return self.sampling_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second: 12.5 in every release."""
        return self.sampling_rate / self.downsample_rate

    @classmethod
    def from_file(cls, path: Path) -> MossAudioTokenizerConfig:
        """Read a `config.json`. Raises ModelConfigError if it is not JSON, or not a codec that is implemented."""
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not the config.json of a codec")
        try:
            source = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelConfigError(f"{path} is not JSON: {error}") from error
        try:
            return cls.from_dict(source)
        except ModelConfigError as error:
            raise ModelConfigError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, source: Mapping[str, Any]) -> MossAudioTokenizerConfig:
        """Check the content of a `config.json`. Keys that concern only the code of the release are ignored."""
        if not isinstance(source, Mapping):
            raise ModelConfigError(f"a config must be a JSON object, not {type(source).__name__}")
        fields = _Fields(source, "")
        sampling_rate = fields.count("sampling_rate", alias="sample_rate")
        downsample_rate = fields.count("downsample_rate")
        number_channels = fields.count("number_channels", default=1)
        if number_channels > 1 and not source.get("enable_channel_interleave", False):
            raise ModelConfigError("number_channels > 1 is implemented only with enable_channel_interleave: true")
        duration = fields.number("causal_transformer_context_duration")
        rate = Fraction(sampling_rate * number_channels)
        encoder, code_rate = _modules(fields, "encoder_kwargs", rate, duration, down=True)
        if code_rate != Fraction(sampling_rate, downsample_rate):
            raise ModelConfigError(f"the encoder's patches give {code_rate} frames per second, but sampling_rate / "
                              f"downsample_rate is {Fraction(sampling_rate, downsample_rate)}")  # fmt: skip
        decoder, output_rate = _modules(fields, "decoder_kwargs", code_rate, duration, down=False)
        if output_rate != rate:
            raise ModelConfigError(
                f"the decoder's patches give {output_rate} samples per second, but the encoder takes {rate}"
            )
        quantizer = _quantizer(source)
        _check_chain(encoder, 1, quantizer.input_dim, "encoder", down=True)
        _check_chain(decoder, quantizer.output_dim, 1, "decoder", down=False)
        return cls(sampling_rate=sampling_rate, downsample_rate=downsample_rate, number_channels=number_channels,
                   causal_transformer_context_duration=duration, encoder=encoder, decoder=decoder, quantizer=quantizer,
                   trained=bool(source.get("trained", True)), source=dict(source))  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` content this configuration was read from."""
        return dict(self.source)


class _Fields:
    """Reads the keys of one JSON object with their types. Errors name the path of the key."""

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        self.values, self.path = values, path

    def get(self, key: str, alias: str | None = None) -> Any:
        if key in self.values:
            return self.values[key]
        return self.values.get(alias) if alias else None

    def count(self, key: str, *, alias: str | None = None, default: int | None = None) -> int:
        value = self.get(key, alias)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelConfigError(f"{self.path}{key} must be a whole number of at least 1, got {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ModelConfigError(f"{self.path}{key} must be a number above 0, got {value!r}")
        return value

    def only(self, key: str, allowed: Any) -> None:
        """Refuse a variant of the architecture that no released model uses."""
        value = self.get(key)
        if value != allowed:
            raise ModelConfigError(
                f"{self.path}{key} = {value!r} is not implemented; the released codecs use {allowed!r}"
            )


def _modules(
    fields: _Fields, key: str, rate: Fraction, duration: float, *, down: bool
) -> tuple[tuple[ModuleConfig, ...], Fraction]:
    """Read a list of modules. `rate` is the frame rate at its beginning, which its patches change."""
    entries = fields.get(key)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ModelConfigError(f"{key} must be a list of modules, got {entries!r}")
    modules: list[ModuleConfig] = []
    for index, entry in enumerate(entries):
        path = f"{key}[{index}]."
        if not isinstance(entry, Mapping):
            raise ModelConfigError(f"{path[:-1]} must be a JSON object, got {entry!r}")
        module = _Fields(entry, path)
        kind = module.get("module_type")
        if kind == "PatchedPretransform":
            patch = PatchConfig(patch_size=module.count("patch_size"))
            rate = rate / patch.patch_size if down else rate * patch.patch_size
            modules.append(patch)
        elif kind == "Transformer":
            modules.append(_transformer(module, rate, duration))
        else:
            raise ModelConfigError(f"{path}module_type = {kind!r} is not implemented; "
                              "the released codecs use 'PatchedPretransform' and 'Transformer'")  # fmt: skip
    return tuple(modules), rate


def _transformer(fields: _Fields, rate: Fraction, duration: float) -> TransformerConfig:
    fields.only("causal", True)
    fields.only("norm", "layer_norm")
    fields.only("positional_embedding", "rope")
    fields.only("gating", "none")
    d_model, num_heads = fields.count("d_model"), fields.count("num_heads")
    if d_model % (2 * num_heads):
        raise ModelConfigError(f"{fields.path}d_model = {d_model} does not split into {num_heads} heads of even size")
    keys = rate * Fraction(str(fields.number("context_duration", duration)))
    # Whole in every release. Where it is not, the releases that have the per-module key round, the first one truncates.
    context = round(keys) if "context_duration" in fields.values else int(keys)
    if context < 1:
        raise ModelConfigError(f"{fields.path}context of {float(keys)} steps is shorter than one step")
    return TransformerConfig(
        input_dimension=fields.count("input_dimension"), output_dimension=fields.count("output_dimension"),
        d_model=d_model, num_heads=num_heads, num_layers=fields.count("num_layers"),
        dim_feedforward=fields.count("dim_feedforward"), max_period=fields.number("max_period", 10000),
        frame_rate=rate, context=context,
    )  # fmt: skip


def _quantizer(source: Mapping[str, Any]) -> QuantizerConfig:
    values = source.get("quantizer_kwargs")
    if not isinstance(values, Mapping):
        raise ModelConfigError(f"quantizer_kwargs must be a JSON object, got {values!r}")
    fields = _Fields(values, "quantizer_kwargs.")
    kind = values.get("quantizer_type", source.get("quantizer_type"))
    if kind != "rlfq":
        raise ModelConfigError(
            f"quantizer_kwargs.quantizer_type = {kind!r} is not implemented; the released codecs use 'rlfq'"
        )
    names = ("input_dim", "rvq_dim", "output_dim", "num_quantizers", "codebook_size", "codebook_dim")
    return QuantizerConfig(**{name: fields.count(name) for name in names})


def _check_chain(modules: Sequence[ModuleConfig], first: int, last: int, name: str, *, down: bool) -> None:
    """Check that each module takes the feature dimension that the module before it gives."""
    dimension = first
    for index, module in enumerate(modules):
        path = f"{name}_kwargs[{index}]"
        if isinstance(module, TransformerConfig):
            if module.input_dimension != dimension:
                raise ModelConfigError(
                    f"{path}.input_dimension is {module.input_dimension}, but it is given {dimension}"
                )
            dimension = module.output_dimension
        elif down:
            dimension *= module.patch_size
        elif dimension % module.patch_size:
            raise ModelConfigError(f"{path}.patch_size {module.patch_size} does not divide the dimension {dimension}")
        else:
            dimension //= module.patch_size
    if dimension != last:
        raise ModelConfigError(f"the {name} gives {dimension} features, but {last} are expected after it")
