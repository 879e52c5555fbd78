"""The recipe of the embedded codec `cat-speech`: its shape, and every number of its training, as one value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from moss_tok.config import MossAudioTokenizerConfig

FRAME_RATE = 12.5
PATCHES = (240, 2, 2, 2)
# Seconds of context at 100, 50, 25 and 12.5 steps a second: 32 or 16 keys, all within a training clip.
CONTEXTS = (0.32, 0.64, 1.28, 1.28)


@dataclass(frozen=True)
class Shape:
    """Widths from 100 Hz to 12.5 Hz; `kept` is what a stage hands on, one channel of it the constant."""

    encoder: tuple[int, ...] = (192, 192, 224, 256)
    decoder: tuple[int, ...] = (224, 224, 224, 256)
    encoder_layers: tuple[int, ...] = (1, 1, 1, 1)
    decoder_layers: tuple[int, ...] = (2, 1, 1, 2)
    feedforward: tuple[float, ...] = (2, 2.5, 2.5, 2.5)
    kept: tuple[int, ...] = (160, 176, 192, 224)
    rvq_dim: int = 192
    num_quantizers: int = 32
    codebook_size: int = 1024
    codebook_dim: int = 8


@dataclass(frozen=True)
class Recipe:
    """Training in three phases: noise channel for `channel_steps`, the quantizer, and from `freeze_step` on the decoder
    alone; `steps` in all. `start` names a trained codec whose weights to start from, None stands for the KLT.
    `encoder_share` is the share of the learning rate that the encoder has while codebooks follow it."""

    shape: Shape = field(default_factory=Shape)
    start: str | None = None
    seed: int = 1
    steps: int = 2940
    channel_steps: int = 1250
    freeze_step: int = 1785
    batch_size: int = 8
    clip_frames: int = 16
    learning_rate: float = 1.5e-3
    projection_rate: float = 3e-4
    encoder_share: float = 1.0
    warmup_steps: int = 200
    decay_steps: int = 1000
    averaging: float = 0.998
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    bits: float = 240.0
    fit_frames: int = 24000
    weights: dict[str, float] = field(default_factory=lambda: {
        "log_mel": 1.5, "mel": 1.0, "magnitude": 2.0, "envelope": 3.0, "loudness": 0.0, "waveform": 2.0,
        "information": 2.0, "commitment": 0.5,
    })  # fmt: skip

    def times(self, factor: float) -> Recipe:
        """The same phases, so many times as long."""
        names = ("steps", "channel_steps", "freeze_step", "decay_steps")
        return replace(self, **{name: round(factor * getattr(self, name)) for name in names})

    def starting_from(self, codec: str) -> Recipe:
        """From the weights of a trained codec: longer clips, a noise channel that lets through what 32 quantizers do,
        more weight for spectra, some for loudness, and a lower rate that falls all the time."""
        return replace(self, start=codec, channel_steps=10500, freeze_step=11000, steps=17400, decay_steps=17400,
                       learning_rate=9e-4, projection_rate=2.3e-4, encoder_share=0.4, batch_size=6, clip_frames=24,
                       bits=320.0, fit_frames=48000, averaging=0.999, weights=self.weights | {
                           "magnitude": 4.0, "envelope": 4.0, "loudness": 4.0, "waveform": 0.5})  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Read what `to_json` wrote, or a part of it. Raises ValueError for a key that does not exist."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        widths: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.get("shape", {}).items()
        }
        shape = Shape(**widths)
        weights = cls().weights | values.get("weights", {})
        return cls(**(values | {"shape": shape, "weights": weights}))

    @classmethod
    def from_file(cls, path: Path) -> Recipe:
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def codec_config(shape: Shape) -> MossAudioTokenizerConfig:
    """The config.json of a codec of this shape."""
    inputs = [PATCHES[0], *(kept * patch for kept, patch in zip(shape.kept[:-1], PATCHES[1:], strict=True))]
    encoder: list[dict[str, Any]] = []
    decoder: list[dict[str, Any]] = []
    for index, patch in enumerate(PATCHES):
        encoder += [
            {"module_type": "PatchedPretransform", "patch_size": patch},
            _stage(shape, index, inputs[index], shape.encoder[index], shape.kept[index], shape.encoder_layers[index]),
        ]
        decoder = [
            _stage(shape, index, shape.kept[index], shape.decoder[index], inputs[index], shape.decoder_layers[index]),
            {"module_type": "PatchedPretransform", "patch_size": patch},
            *decoder,
        ]
    return MossAudioTokenizerConfig.from_dict({
        "architectures": ["MossAudioTokenizerModel"], "model_type": "moss-audio-tokenizer",
        "sampling_rate": 24000, "downsample_rate": 1920, "causal_transformer_context_duration": 1.28,
        "encoder_kwargs": encoder, "decoder_kwargs": decoder, "quantizer_type": "rlfq",
        "quantizer_kwargs": {
            "quantizer_type": "rlfq", "input_dim": shape.kept[-1], "rvq_dim": shape.rvq_dim,
            "output_dim": shape.kept[-1], "num_quantizers": shape.num_quantizers,
            "codebook_size": shape.codebook_size, "codebook_dim": shape.codebook_dim,
        },
    })  # fmt: skip


def _stage(shape: Shape, index: int, inputs: int, d_model: int, outputs: int, layers: int) -> dict[str, Any]:
    return {
        "module_type": "Transformer", "input_dimension": inputs, "output_dimension": outputs, "d_model": d_model,
        "num_heads": d_model // 32, "num_layers": layers, "dim_feedforward": int(shape.feedforward[index] * d_model),
        "causal": True, "norm": "layer_norm", "positional_embedding": "rope", "max_period": 10000, "gating": "none",
        "context_duration": CONTEXTS[index],
    }  # fmt: skip
