"""The transformer of the Qwen3-TTS decoder: causal, each frame with those of a window before it.

It is of the form of Llama's, with a learnt scale for what each layer adds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.codecs.qwen3_tts_config import DecoderConfig


def rotations(frames: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (frames, head_dim) of rotary positions; both halves of a head have the same."""
    steps = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    angles = torch.arange(frames, device=device, dtype=torch.float32)[:, None] * (1.0 / theta**steps)
    return angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


def rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-right, left), dim=-1) * sin


def window(frames: int, size: int, device: torch.device) -> Tensor:
    """(frames, frames): true where a frame takes from another, which is itself or one of the size - 1 before it."""
    position = torch.arange(frames, device=device)
    back = position[:, None] - position
    return (back >= 0) & (back < size)


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.shared = config.num_attention_heads // config.num_key_value_heads
        inner, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        queries, keys, values = (
            projection(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        keys = rotated(keys, cos, sin).repeat_interleave(self.shared, dim=1)
        values = values.repeat_interleave(self.shared, dim=1)
        taken = functional.scaled_dot_product_attention(rotated(queries, cos, sin), keys, values, attn_mask=mask)
        out: Tensor = self.o_proj(taken.transpose(1, 2).flatten(2))
        return out


class GatedLinear(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return out


class Scale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.01))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.scale * hidden


class Layer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = GatedLinear(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn_layer_scale = Scale(config.hidden_size)
        self.mlp_layer_scale = Scale(config.hidden_size)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(hidden), cos, sin, mask))
        out: Tensor = hidden + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(hidden)))
        return out


class Transformer(nn.Module):
    """(batch, frames, latent_dim) to the same; inside it is `hidden_size` wide."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def forward(self, latents: Tensor) -> Tensor:
        frames, device = latents.shape[1], latents.device
        cos, sin = rotations(frames, self.config.head_dim, self.config.rope_theta, device)
        mask = window(frames, self.config.sliding_window, device)
        hidden = self.input_proj(latents)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, mask)
        out: Tensor = self.output_proj(self.norm(hidden))
        return out
