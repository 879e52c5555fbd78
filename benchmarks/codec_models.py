"""Codecs of the released architecture with random weights, in three sizes, built in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from moss_tok import MossAudioTokenizerConfig, MossAudioTokenizerModel
from moss_tok.packed_codec import Parts
from moss_tok.weights import assign_weights

# (layers at 100, 50 and 25 Hz with d = 768; layers at 12.5 Hz with d = 1280). "100m" keeps the widths of the release.
DEPTHS = {"full": (12, 32), "100m": (2, 3)}


def release_config(depths: tuple[int, int]) -> MossAudioTokenizerConfig:
    """The v1 release's shape with other depths."""
    shallow, deep = depths

    def stage(inputs: int, d_model: int, outputs: int, layers: int) -> dict[str, Any]:
        return {
            "module_type": "Transformer",
            "input_dimension": inputs,
            "output_dimension": outputs,
            "d_model": d_model,
            "num_heads": d_model // 64,
            "num_layers": layers,
            "dim_feedforward": 4 * d_model,
            "causal": True,
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "max_period": 10000,
            "gating": "none",
        }

    def patch(size: int) -> dict[str, Any]:
        return {"module_type": "PatchedPretransform", "patch_size": size}

    encoder = [
        *(patch(240), stage(240, 768, 384, shallow), patch(2), stage(768, 768, 384, shallow)),
        *(patch(2), stage(768, 768, 640, shallow), patch(2), stage(1280, 1280, 768, deep)),
    ]
    decoder = [
        *(stage(768, 1280, 1280, deep), patch(2), stage(640, 768, 768, shallow), patch(2)),
        *(stage(384, 768, 768, shallow), patch(2), stage(384, 768, 240, shallow), patch(240)),
    ]
    return MossAudioTokenizerConfig.from_dict(
        {
            "sampling_rate": 24000,
            "downsample_rate": 1920,
            "causal_transformer_context_duration": 10,
            "encoder_kwargs": encoder,
            "decoder_kwargs": decoder,
            "quantizer_kwargs": {
                "quantizer_type": "rlfq",
                "input_dim": 768,
                "rvq_dim": 512,
                "output_dim": 768,
                "num_quantizers": 32,
                "codebook_size": 1024,
                "codebook_dim": 8,
            },
        }
    )


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep activations in range: products preserve variance, layer scales are the release's initial
    0.01.
    """
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(".scale"):
            weights[name] = torch.full(shape, 0.01)
        elif ".norm" in name:
            weights[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        elif len(shape) == 1 or shape[1:] == (1, 1):
            weights[name] = torch.rand(shape, generator=draw)
        else:
            weights[name] = torch.randn(shape, generator=draw).mul_(shape[1] ** -0.5)
    return weights


def random_model(size: str, *, parts: Parts = "encoder", dtype: torch.dtype = torch.float32) -> MossAudioTokenizerModel:
    """A codec of one of the sizes of DEPTHS, or the embedded one for "tiny"."""
    if size == "tiny":
        return MossAudioTokenizerModel.from_pretrained("cat-tiny", parts=parts, dtype=dtype)
    with torch.device("meta"):
        model = MossAudioTokenizerModel(release_config(DEPTHS[size]), set(), parts)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assign_weights(model, random_weights(shapes), dtype)
    return model.to("cpu").eval()


def matmul_flop(model: MossAudioTokenizerModel) -> float:
    """Floating-point operations of the encoder's matrix products for one second of audio, without attention."""
    if model.encoder is None:
        raise ValueError("this model has no encoder")
    return sum(
        2.0 * parameter.numel() * float(stage.config.frame_rate)
        for stage in model.encoder.stages
        for parameter in stage.parameters()
        if parameter.dim() == 2
    )


def attention_flop(model: MossAudioTokenizerModel, seconds: float) -> float:
    """Operations that a causal window of exactly `context` keys needs for one clip of that length."""
    if model.encoder is None:
        raise ValueError("this model has no encoder")
    total = 0.0
    for stage in model.encoder.stages:
        config = stage.config
        steps = round(seconds * float(config.frame_rate))
        ramp = min(steps, config.context)
        keys = ramp * (ramp + 1) / 2 + max(0, steps - config.context) * config.context
        total += 4.0 * keys * config.d_model * config.num_layers
    return total
