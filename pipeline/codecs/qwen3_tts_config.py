"""What the Qwen3-TTS decoder is built from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The section `decoder_config` of a config.json, as far as it says what is computed."""

    codebook_size: int
    codebook_dim: int
    num_quantizers: int
    latent_dim: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    sliding_window: int
    rms_norm_eps: float
    rope_theta: float
    upsampling_ratios: tuple[int, ...]
    upsample_rates: tuple[int, ...]
    decoder_dim: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """Raises KeyError for a key that is missing, ValueError for a decoder of another kind."""
        known = {"hidden_act": "silu", "attention_bias": False, "rope_scaling": None}
        for name, only in known.items():
            if values.get(name, only) != only:
                raise ValueError(f"decoder_config.{name}: {values[name]!r}, and only {only!r} is known")
        read: dict[str, Any] = {field.name: values[field.name] for field in fields(cls)}
        rates = {name: tuple(read[name]) for name in ("upsampling_ratios", "upsample_rates")}
        return cls(**(read | rates))

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.upsampling_ratios + self.upsample_rates)
