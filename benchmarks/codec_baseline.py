"""The published algorithm in its plain form, as a baseline. It pads a batch to its longest clip, uses a dense attention
mask over all pairs of steps in every layer, and quantizes with a loop over residuals of width 512.

It uses the weights of the model that it is compared with, in eager mode and float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tok import MossAudioTokenizerModel
from moss_tok.quantizer import Quantizer
from moss_tok.rope import rope_table
from moss_tok.stack import Patch
from moss_tok.stage import Stage
from moss_tok.transformer import TransformerLayer


@torch.no_grad()
def encode_padded(model: MossAudioTokenizerModel, clips: list[Tensor]) -> list[Tensor]:
    """Codes (num_quantizers, frames) of mono clips (samples,)."""
    if model.encoder is None:
        raise ValueError("this model has no encoder")
    frames = [-(-clip.numel() // model.downsample_rate) for clip in clips]
    length = max(frames) * model.downsample_rate
    x = torch.stack([F.pad(clip, (0, length - clip.numel())) for clip in clips])[:, None]
    for module in model.encoder:
        if isinstance(module, Patch):
            batch, channels, steps = x.shape
            x = x.view(batch, channels, steps // module.size, module.size).transpose(2, 3)
            x = x.reshape(batch, channels * module.size, -1)
        elif isinstance(module, Stage):
            x = _stage(module, x.transpose(1, 2)).transpose(1, 2)
    codes = _quantize(model, x.transpose(1, 2))
    return [codes[:, index, :count] for index, count in enumerate(frames)]


def _stage(stage: Stage, x: Tensor) -> Tensor:
    """x (batch, steps, features)."""
    config = stage.config
    if stage.input_proj is not None:
        x = F.linear(x, stage.input_proj.weight)
    for layer in stage.transformer:
        x = x + layer.layer_scale_1.scale * _attention(layer, layer.norm1(x), config.context, config.max_period)
        hidden = F.gelu(F.linear(layer.norm2(x), layer.linear1.weight))
        x = x + layer.layer_scale_2.scale * F.linear(hidden, layer.linear2.weight)
    return x if stage.output_proj is None else F.linear(x, stage.output_proj.weight)


def _attention(layer: TransformerLayer, x: Tensor, context: int, max_period: float) -> Tensor:
    batch, steps, d_model = x.shape
    _, heads, head_dim = layer.heads
    q, k, v = F.linear(x, layer.self_attn.in_proj.weight).view(batch, steps, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
    position = torch.arange(steps, device=x.device)
    cos, sin = (table.view(steps, head_dim // 2) for table in rope_table(position, head_dim, max_period))
    q, k = (_rotated(value, cos, sin) for value in (q, k))
    distance = position[:, None] - position
    mask = (distance >= 0) & (distance < context)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return F.linear(mixed.transpose(1, 2).reshape(batch, steps, d_model), layer.self_attn.out_proj.weight)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _quantize(model: MossAudioTokenizerModel, hidden: Tensor) -> Tensor:
    """hidden (batch, frames, D) -> codes (num_quantizers, batch, frames)."""
    weight, bias = (value.float() for value in model.quantizer.input_proj.folded())
    residual = F.linear(hidden, weight, bias)
    codes = []
    for module in model.quantizer.quantizers:
        if not isinstance(module, Quantizer):
            raise TypeError(f"not a quantizer: {module}")
        in_weight, in_bias = (value.float() for value in module.in_proj.folded())
        out_weight, out_bias = (value.float() for value in module.out_proj.folded())
        query = F.normalize(F.linear(residual, in_weight, in_bias), dim=-1)
        codes.append((query @ F.normalize(module.codebook.weight, dim=-1).T).argmax(-1))
        residual = residual - F.linear(module.codebook(codes[-1]), out_weight, out_bias)
    return torch.stack(codes)
