"""X-Codec and the Higgs Audio v2 tokenizer, through `transformers`: semantic and acoustic features in one RVQ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.codecs.protocol import Codebook, CodecDescription
from pipeline.codecs.torch_clips import TorchClips
from pipeline.codecs.transformers_models import transformers_family


class Xcodec(TorchClips):
    """A clip is padded with zeros to whole frames, as the extractor does that both models are published with."""

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        return list(self.model.encode(waveform[None]).audio_codes[0]), None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decode(torch.stack(list(codes))[None]).audio_values[0]
        return audio


def _describe(family: str) -> Callable[[Any], CodecDescription]:
    def describe(config: Any) -> CodecDescription:
        return CodecDescription(
            family=family,
            sample_rate=config.sample_rate,
            channels=1,
            codebooks=(Codebook(config.codebook_size, config.hop_length),) * config.num_quantizers,
        )

    return describe


FAMILY = transformers_family("xcodec", "Xcodec", _describe("xcodec"), Xcodec, ("xcodec",))
HIGGS = transformers_family("higgs", "HiggsAudioV2Tokenizer", _describe("higgs"), Xcodec, ("higgs_audio_v2_tokenizer",))
