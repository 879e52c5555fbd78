"""The decoder of the Qwen3-TTS 12 Hz tokenizer, from 16 codes a frame to sound, with the names of its weights.

Its arithmetic is that of the repository QwenLM/Qwen3-TTS: codebooks as in Mimi, a transformer with a sliding window,
and the convolutions of Qwen3-Omni's decoder, of which nothing looks ahead. Tensors are (batch, channels, time), and
(batch, time, channels) inside the transformer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.codecs.qwen3_tts_config import DecoderConfig
from pipeline.codecs.qwen3_tts_transformer import Transformer

CHUNK_FRAMES = 300
"""What is decoded in one call; longer clips are decoded in chunks, as by the package, and so have bounded memory."""
CONTEXT_FRAMES = 25
"""Frames before a chunk that are decoded with it, and left out."""


class Codebook(nn.Module):
    """Rows are means: sums of what was assigned to them in training, and how much that was."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.cluster_usage = nn.Parameter(torch.ones(size))
        self.embedding_sum = nn.Parameter(torch.zeros(size, dim))

    def forward(self, codes: Tensor) -> Tensor:
        return functional.embedding(codes, self.embedding_sum / self.cluster_usage.clamp(min=1e-5)[:, None])


class ResidualCodebooks(nn.Module):
    """What the codes (batch, codebooks, frames) of the first codebooks add up to. `input_proj` was for training."""

    def __init__(self, count: int, config: DecoderConfig) -> None:
        super().__init__()
        outer, inner = config.codebook_dim, config.codebook_dim // 2
        self.input_proj = nn.Conv1d(outer, inner, 1, bias=False)
        self.output_proj = nn.Conv1d(inner, outer, 1, bias=False)
        codebooks = [nn.ModuleDict({"_codebook": Codebook(config.codebook_size, inner)}) for _ in range(count)]
        self.vq = nn.ModuleDict({"layers": nn.ModuleList(codebooks)})

    def forward(self, codes: Tensor) -> Tensor:
        layers: Any = self.vq["layers"]
        found: list[Tensor] = [layers[i]["_codebook"](each) for i, each in enumerate(codes.unbind(1))]
        projected: Tensor = self.output_proj(sum(found[1:], found[0]).transpose(1, 2))
        return projected


class SplitCodebooks(nn.Module):
    """The first codebook, of meaning, and the others, of sound, each with a projection of their own."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.rvq_first = ResidualCodebooks(1, config)
        self.rvq_rest = ResidualCodebooks(config.num_quantizers - 1, config)

    def forward(self, codes: Tensor) -> Tensor:
        first: Tensor = self.rvq_first(codes[:, :1])
        return first + self.rvq_rest(codes[:, 1:]) if codes.shape[1] > 1 else first


class CausalConv(nn.Module):
    """As many samples out as in, each of itself and those before it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, groups=groups)
        self.past = (kernel - 1) * dilation

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.pad(hidden, (self.past, 0)))
        return out


class CausalUpsampling(nn.Module):
    """`rate` samples out for each one in; what the last one adds after them is cut off.

    The package's first release also cut off the beginning, and so gave too few samples; it was corrected.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, rate)
        self.rate = rate

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.conv(hidden)
        return out[..., : hidden.shape[-1] * self.rate]


class ConvNeXt(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = CausalConv(dim, dim, 7, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, hidden: Tensor) -> Tensor:
        mixed = self.norm(self.dwconv(hidden).transpose(1, 2))
        changed: Tensor = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(mixed)))
        return hidden + changed.transpose(1, 2)


class SnakeBeta(nn.Module):
    """x + sin²(exp(alpha) x) / exp(beta), with both learnt for each channel (Ziyin et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden: Tensor) -> Tensor:
        wave = torch.sin(hidden * self.alpha.exp()[:, None])
        return hidden + 1 / (self.beta.exp()[:, None] + 1e-9) * wave**2


class ResidualUnit(nn.Module):
    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(dim)
        self.conv1 = CausalConv(dim, dim, 7, dilation)
        self.act2 = SnakeBeta(dim)
        self.conv2 = CausalConv(dim, dim, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.conv2(self.act2(self.conv1(self.act1(hidden))))
        return hidden + changed


class UpsamplingBlock(nn.Module):
    """Half the channels, `rate` times the samples."""

    def __init__(self, dim: int, rate: int) -> None:
        super().__init__()
        units = (ResidualUnit(dim // 2, dilation) for dilation in (1, 3, 9))
        self.block = nn.Sequential(SnakeBeta(dim), CausalUpsampling(dim, dim // 2, 2 * rate, rate), *units)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.block(hidden)
        return out


class Decoder(nn.Module):
    """Codes (batch, codebooks, frames) of all or the first codebooks to sound (batch, 1, samples) in [-1, 1]."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.samples_per_frame = config.samples_per_frame
        latent, dims = config.latent_dim, [config.decoder_dim >> i for i in range(len(config.upsample_rates) + 1)]
        self.quantizer = SplitCodebooks(config)
        self.pre_conv = CausalConv(config.codebook_dim, latent, 3)
        self.pre_transformer = Transformer(config)
        self.upsample = nn.Sequential(
            *(
                nn.Sequential(CausalUpsampling(latent, latent, ratio, ratio), ConvNeXt(latent))
                for ratio in config.upsampling_ratios
            )
        )
        blocks = (UpsamplingBlock(dim, rate) for dim, rate in zip(dims, config.upsample_rates, strict=False))
        self.decoder = nn.Sequential(
            CausalConv(latent, dims[0], 7), *blocks, SnakeBeta(dims[-1]), CausalConv(dims[-1], 1, 7)
        )

    def forward(self, codes: Tensor) -> Tensor:
        chunks = []
        for start in range(0, codes.shape[-1], CHUNK_FRAMES):
            context = min(start, CONTEXT_FRAMES)
            sound = self.decode_chunk(codes[..., start - context : start + CHUNK_FRAMES])
            chunks.append(sound[..., context * self.samples_per_frame :])
        return torch.cat(chunks, dim=-1)

    def decode_chunk(self, codes: Tensor) -> Tensor:
        hidden = self.pre_conv(self.quantizer(codes)).transpose(1, 2)
        hidden = self.pre_transformer(hidden).transpose(1, 2)
        sound: Tensor = self.decoder(self.upsample(hidden))
        return sound.clamp(-1, 1)
