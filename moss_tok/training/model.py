"""The codec written plainly, so that gradients flow: for clips of one length, without packing, tiles or folding.

Its transformers compute what `moss_tok.stack` computes, and its parameters have the release's names, so that their
tensors are those of a checkpoint; a test holds both equal. The quantizer's half is in quantizer.py.

Shapes: B clips, T steps, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tok.config import ModuleConfig, MossAudioTokenizerConfig, PatchConfig, TransformerConfig
from moss_tok.training.quantizer import TrainableQuantizer

NORM_EPSILON = 1e-5


@lru_cache(maxsize=32)
def window_mask(steps: int, context: int, device: torch.device) -> Tensor:
    """(steps, steps), true where a query (row) sees a key: its own step and the `context - 1` before it."""
    distance = torch.arange(steps)[:, None] - torch.arange(steps)
    return ((distance >= 0) & (distance < context)).to(device)


@lru_cache(maxsize=32)
def rotation(steps: int, head_dim: int, max_period: float, device: torch.device) -> Tensor:
    """Complex numbers of length 1, (steps, head_dim / 2), for the rotary positions 0, 1, …; see `moss_tok.rope`."""
    frequencies = torch.exp(torch.arange(head_dim // 2, dtype=torch.float32) * (-2 * math.log(max_period) / head_dim))
    angles = torch.arange(steps, dtype=torch.float32)[:, None] * frequencies
    return torch.complex(angles.cos(), angles.sin()).to(device)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the interleaved pairs of x (B, T, …, head_dim) by `turns`, which has as many dimensions but for B.

    As products of complex numbers: slices of every other feature would take five times as long, mostly backwards.
    """
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.in_projs = nn.ModuleList([nn.Linear(config.d_model, 3 * config.d_model, bias=False)])
        self.out_projs = nn.ModuleList([nn.Linear(config.d_model, config.d_model, bias=False)])

    @property
    def weights(self) -> tuple[Tensor, Tensor]:
        """The in-projection (3 * d, d) and the out-projection (d, d)."""
        return self.get_parameter("in_projs.0.weight"), self.get_parameter("out_projs.0.weight")

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, d_model = x.shape
        projected = self.in_projs[0](x)
        # Of single precision: in bfloat16 a CPU's attention takes more than twice as long.
        with torch.autocast(x.device.type, enabled=False):
            mixed = self._mixed(projected.float().view(batch, steps, 3, self.config.num_heads, -1))
        returned: Tensor = self.out_projs[0](mixed.transpose(1, 2).reshape(batch, steps, d_model))
        return returned

    def _mixed(self, qkv: Tensor) -> Tensor:
        """qkv (B, T, 3, heads, head_dim) -> (B, heads, T, head_dim)."""
        config, steps = self.config, qkv.shape[1]
        both, values = torch.split(qkv, [2, 1], dim=2)
        turns = rotation(steps, config.head_dim, config.max_period, qkv.device)
        queries, keys = rotate(both, turns[:, None, None]).transpose(1, 3).unbind(2)
        return F.scaled_dot_product_attention(
            queries, keys, values[:, :, 0].transpose(1, 2), attn_mask=window_mask(steps, config.context, qkv.device)
        )


class Scale(nn.Module):
    def __init__(self, d_model: int, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((d_model,), value))


class Layer(nn.Module):
    """x + scale1 * attention(norm1(x)), then x + scale2 * ffn(norm2(x))."""

    def __init__(self, config: TransformerConfig, layer_scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, eps=NORM_EPSILON)
        self.self_attn = Attention(config)
        self.layer_scale_1 = Scale(config.d_model, layer_scale)
        self.norm2 = nn.LayerNorm(config.d_model, eps=NORM_EPSILON)
        self.linear1 = nn.Linear(config.d_model, config.dim_feedforward, bias=False)
        self.linear2 = nn.Linear(config.dim_feedforward, config.d_model, bias=False)
        self.layer_scale_2 = Scale(config.d_model, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm1(x)) * self.layer_scale_1.scale
        added: Tensor = self.linear2(F.gelu(self.linear1(self.norm2(x)))) * self.layer_scale_2.scale
        return x + added


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig, layer_scale: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, layer_scale) for _ in range(config.num_layers))


class Stage(nn.Module):
    """Input projection, layers, output projection: (B, T, input_dimension) -> (B, T, output_dimension)."""

    def __init__(self, config: TransformerConfig, layer_scale: float) -> None:
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.input_dimension, config.d_model, bias=False)
        self.transformer = Transformer(config, layer_scale)
        self.output_proj = nn.Linear(config.d_model, config.output_dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_proj(x)
        for layer in self.transformer.layers:
            x = layer(x)
        # In single precision: a waveform rounded to 8 bits has noise in it that outweighs what is quiet.
        with torch.autocast(x.device.type, enabled=False):
            projected: Tensor = self.output_proj(x.float())
        return projected


class Stack(nn.ModuleList):
    """The modules of the encoder (`down`) or the decoder. A patch is a placeholder: indices are the release's."""

    def __init__(self, modules: Sequence[ModuleConfig], layer_scale: float, *, down: bool) -> None:
        super().__init__(
            nn.Identity() if isinstance(module, PatchConfig) else Stage(module, layer_scale) for module in modules
        )
        self.configs, self.down = list(modules), down

    @property
    def stages(self) -> list[Stage]:
        return [module for module in self if isinstance(module, Stage)]

    def forward(self, x: Tensor) -> Tensor:
        for config, module in zip(self.configs, self, strict=True):
            if isinstance(config, PatchConfig):
                x = patch_down(x, config.patch_size) if self.down else patch_up(x, config.patch_size)
            else:
                x = module(x)
        return x


def patch_down(x: Tensor, size: int) -> Tensor:
    """(B, T, D) -> (B, T / size, D * size), channel d * size + j from channel d of step j."""
    batch, steps, channels = x.shape
    return x.view(batch, steps // size, size, channels).transpose(2, 3).reshape(batch, steps // size, channels * size)


def patch_up(x: Tensor, size: int) -> Tensor:
    """Undo `patch_down`."""
    batch, steps, channels = x.shape
    return x.view(batch, steps, channels // size, size).transpose(2, 3).reshape(batch, steps * size, channels // size)


class TrainableCodec(nn.Module):
    """Encoder, quantizer and decoder of a mono configuration whose stages all have both projections.

    Encoder and decoder multiply matrices in `products`; parameters, latents and quantizer stay in single precision.
    """

    def __init__(
        self, config: MossAudioTokenizerConfig, layer_scale: float = 0.1, *, products: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if config.number_channels != 1:
            raise ValueError(f"training is written for mono codecs; this one has {config.number_channels} channels")
        self.config, self.products = config, products
        self.encoder = Stack(config.encoder, layer_scale, down=True)
        self.quantizer = TrainableQuantizer(config.quantizer)
        self.decoder = Stack(config.decoder, layer_scale, down=False)

    def encode(self, waveforms: Tensor) -> Tensor:
        """waveforms (B, samples), whole frames -> latents (B, frames, rvq_dim) before quantizing."""
        with self._precision():
            hidden = self.encoder(waveforms[:, :, None])
        latents: Tensor = self.quantizer.input_proj(hidden)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, frames, rvq_dim) -> waveforms (B, samples)."""
        hidden = self.quantizer.output_proj(latents)
        with self._precision():
            waveforms: Tensor = self.decoder(hidden)
        return waveforms[:, :, 0]

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.quantizer.mean.device.type, self.products, enabled=self.products != torch.float32)
