"""WavTokenizer, through `transformers`: 24 kHz, 40 frames a second, one codebook of 4096."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.codecs.protocol import Codebook, CodecDescription
from pipeline.codecs.torch_clips import TorchClips
from pipeline.codecs.transformers_models import transformers_family


class WavTokenizer(TorchClips):
    """The model fills up the last frame itself."""

    padded_to = "nothing"

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        return list(self.model.encode(waveform[None]).audio_codes[0]), None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decode(torch.stack(list(codes))[None]).audio_values[0]
        return audio.reshape(1, -1)


def _describe(config: Any) -> CodecDescription:
    return CodecDescription(
        family="wavtokenizer",
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        codebooks=(Codebook(config.codebook_size, config.hop_length),),
    )


FAMILY = transformers_family("wavtokenizer", "WavTokenizer", _describe, WavTokenizer, ("wavtokenizer",))
