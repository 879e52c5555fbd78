"""XCodec2 and NeuCodec, through `transformers`: 16 kHz in, 50 frames a second, one codebook of 65536 by default.

NeuCodec decodes to 24 kHz.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.codecs.protocol import Codebook, CodecDescription
from pipeline.codecs.torch_clips import PaddedTo, TorchClips
from pipeline.codecs.transformers_models import import_transformers, transformers_family


class Xcodec2(TorchClips):
    """Features are those of the library's extractor, which pads a clip with at least one zero: of a clip of whole
    frames it makes one frame too many, which is left out.
    """

    extractor = "Xcodec2FeatureExtractor"
    padded_to: PaddedTo = "nothing"

    def __init__(self, description: CodecDescription, model: Any, device: str) -> None:
        super().__init__(description, model, device)
        make = getattr(import_transformers(), self.extractor)
        self._extract = make(sampling_rate=description.sample_rate, hop_length=description.samples_per_frame)

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        rate = self.description.sample_rate
        features = self._extract([waveform[0].cpu().numpy()], sampling_rate=rate, return_tensors="pt")
        inputs = {
            name: features[name].to(self.device) for name in ("input_values", "input_features", "input_features_mask")
        }
        frames = self.description.frames(waveform.shape[1])
        return list(self.model.encode(**inputs).audio_codes[0, :, :frames]), None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decode(audio_codes=torch.stack(list(codes))[None]).audio_values[0]
        return audio.reshape(1, -1)


class NeuCodec(Xcodec2):
    """The same with the features of NeuCodec, which reach to the last whole frame, and with its decoder. A clip shorter
    than a frame, which the library cannot take, is padded to one.
    """

    extractor = "NeuCodecFeatureExtractor"
    padded_to = "a frame"


def _describe(config: Any) -> CodecDescription:
    hop = math.prod(config.downsampling_ratios)
    return CodecDescription(
        family="xcodec2",
        sample_rate=config.sampling_rate,
        channels=1,
        codebooks=(Codebook(math.prod(config.quantization_levels), hop),),
    )


def _describe_neucodec(config: Any) -> CodecDescription:
    return CodecDescription(
        family="neucodec",
        sample_rate=config.input_sampling_rate,
        channels=1,
        codebooks=(Codebook(math.prod(config.quantization_levels), config.encoder_hop_length),),
        decoded_sample_rate=config.output_sampling_rate,
        whole_frames_only=True,
    )


FAMILY = transformers_family("xcodec2", "Xcodec2", _describe, Xcodec2, ("xcodec2",))
NEUCODEC = transformers_family("neucodec", "NeuCodec", _describe_neucodec, NeuCodec, ("neucodec",))
