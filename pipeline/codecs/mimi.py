"""Mimi (Kyutai), through `transformers`: 24 kHz, 12.5 frames a second, 32 codebooks of 2048."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.codecs.protocol import Codebook, CodecDescription
from pipeline.codecs.torch_clips import TorchClips
from pipeline.codecs.transformers_models import transformers_family


class Mimi(TorchClips):
    """A clip is padded with zeros to whole frames, as moshi does: unpadded, its last frames have other codes."""

    latents_first = True

    def latents(self, batch: Tensor) -> Tensor:
        latents: Tensor = self.model.encoder(batch).latents
        return latents

    def quantize(self, latents: Tensor) -> Sequence[Tensor]:
        return list(self.model.quantizer.encode(latents)[:, 0])

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decode(torch.stack(list(codes))[None]).audio_values[0]
        return audio


def _describe(config: Any) -> CodecDescription:
    return CodecDescription(
        family="mimi",
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        codebooks=(Codebook(config.codebook_size, config.frame_size),) * config.num_quantizers,
    )


FAMILY = transformers_family("mimi", "Mimi", _describe, Mimi, ("mimi",))
