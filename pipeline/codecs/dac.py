"""The Descript Audio Codec, through `transformers`: 16, 24 or 44.1 kHz, 9 to 12 codebooks of 1024."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.codecs.protocol import Codebook, CodecDescription
from pipeline.codecs.torch_clips import TorchClips
from pipeline.codecs.transformers_models import transformers_family


class Dac(TorchClips):
    """A clip is padded with zeros to whole frames, as its feature extractor does."""

    latents_first = True

    def latents(self, batch: Tensor) -> Tensor:
        latents: Tensor = self.model.encoder(batch)
        return latents

    def quantize(self, latents: Tensor) -> Sequence[Tensor]:
        return list(self.model.quantizer(latents)[1][0])

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decode(audio_codes=torch.stack(list(codes))[None]).audio_values
        return audio


def _describe(config: Any) -> CodecDescription:
    return CodecDescription(
        family="dac",
        sample_rate=config.sampling_rate,
        channels=1,
        codebooks=(Codebook(config.codebook_size, config.hop_length),) * config.n_codebooks,
    )


FAMILY = transformers_family("dac", "Dac", _describe, Dac, ("dac",))
