"""The validation curve: how near a codec comes to recordings that it never trained on, a line of JSON at a time."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from moss_tok.training import channel
from moss_tok.training.losses import Losses, distances
from moss_tok.training.model import TrainableCodec

PREFIXES = (1, 8, 32)
NOISE = (1.0, 4.0)


@torch.no_grad()
def measure(codec: TrainableCodec, clips: Tensor, *, quantized: bool) -> dict[str, Any]:
    """Distances of the decoded clips (B, samples): at several numbers of quantizers, or of noise levels before there
    are quantizers.
    """
    latents = codec.encode(clips)
    if not quantized:
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(latents.shape, generator=draw).to(latents.device)
        levels = {level: torch.full((len(clips),), level, device=latents.device) for level in NOISE}
        return {
            f"noise_{level:.0f}": _distances(codec, channel.transmit(codec.quantizer, latents, noise, each), clips)
            for level, each in levels.items()
        }
    codes, _ = codec.quantizer.codes_of(latents.flatten(0, 1))
    sums = codec.quantizer.parts(codes).cumsum(1)
    counts = sorted({min(count, codes.shape[1]) for count in PREFIXES})
    found = {f"quantizers_{count}": _distances(codec, sums[:, count - 1].view_as(latents), clips) for count in counts}
    # Of the codes that so many frames can use at most.
    most = min(codec.quantizer.config.codebook_size, len(codes))
    used = [row.unique().numel() / most for row in codes.T]
    return found | {"codes_used": round(sum(used) / len(used), 4)}


def _distances(codec: TrainableCodec, received: Tensor, clips: Tensor) -> dict[str, float]:
    everything = torch.ones(len(clips), device=clips.device)
    found = distances(codec.decode(received), clips, codec.config.sampling_rate, everything)
    return {item.name: round(float(getattr(found, item.name)), 4) for item in fields(Losses)}
