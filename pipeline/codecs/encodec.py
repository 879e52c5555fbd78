"""EnCodec (Meta), through `transformers`: 24 kHz mono, and 48 kHz stereo in chunks of a second with a scale each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.codecs.protocol import Chunking, Codebook, CodecDescription
from pipeline.codecs.torch_clips import TorchClips
from pipeline.codecs.transformers_models import transformers_family


class Encodec(TorchClips):
    """Nothing is padded here: the model's own convolutions fill up the last frame of a clip, or of its last chunk.

    Chunks are cut and laid over each other as by the library, but one by one: it cannot stack the chunks of clips whose
    last but one is a little shorter than a whole one.
    """

    padded_to = "nothing"

    def __init__(self, description: CodecDescription, model: Any, device: str) -> None:
        self._bandwidth = model.config.target_bandwidths[-1]
        model.config.chunk_length_s = None  # each call takes one chunk
        self.latents_first = not model.config.normalize
        super().__init__(description, model, device)

    def latents(self, batch: Tensor) -> Tensor:
        latents: Tensor = self.model.encoder(batch)
        return latents

    def quantize(self, latents: Tensor) -> Sequence[Tensor]:
        return list(self.model.quantizer.encode(latents, self._bandwidth)[:, 0])

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        codes, scales = [], []
        for start, length in self._chunks(waveform.shape[1]):
            encoded = self.model.encode(waveform[None, :, start : start + length], bandwidth=self._bandwidth)
            codes.append(encoded.audio_codes[0, 0])
            scales.append(encoded.audio_scales[0])
        return list(torch.cat(codes, dim=1)), torch.cat(scales).flatten() if self.description.scales else None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        chunks = self._chunks(num_samples)
        frames = [-(-length // self.description.samples_per_frame) for _, length in chunks]
        parts = torch.split(torch.stack(list(codes)), frames, dim=1)
        audio = [
            self.model.decode(part[None, None], [None if scales is None else scales[number]]).audio_values[0]
            for number, part in enumerate(parts)
        ]
        return audio[0] if len(audio) == 1 else _overlapped(audio, chunks)

    def _chunks(self, num_samples: int) -> list[tuple[int, int]]:
        """Start and samples of each chunk."""
        chunking = self.description.chunking
        if chunking is None:
            return [(0, num_samples)]
        return [(number * chunking.stride, length) for number, length in enumerate(chunking.lengths(num_samples))]


def _overlapped(chunks: Sequence[Tensor], places: Sequence[tuple[int, int]]) -> Tensor:
    """Chunks (channels, samples) faded into each other: weights rise and fall linearly over a whole chunk.

    The weights are those of the library's `_linear_overlap_add`.
    """
    whole = max(chunk.shape[1] for chunk in chunks)
    end = max(start + chunk.shape[1] for chunk, (start, _) in zip(chunks, places, strict=True))
    time = torch.linspace(0, 1, whole + 2, device=chunks[0].device)[1:-1]
    weight = 0.5 - (time - 0.5).abs()
    total, weights = chunks[0].new_zeros(chunks[0].shape[0], end), chunks[0].new_zeros(end)
    for chunk, (start, _) in zip(chunks, places, strict=True):
        stop = start + chunk.shape[1]
        total[:, start:stop] += weight[: chunk.shape[1]] * chunk
        weights[start:stop] += weight[: chunk.shape[1]]
    return total / weights


def _describe(config: Any) -> CodecDescription:
    length, stride = config.chunk_length, config.chunk_stride
    return CodecDescription(
        family="encodec",
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        codebooks=(Codebook(config.codebook_size, config.hop_length),) * config.num_quantizers,
        chunking=None if length is None else Chunking(length, stride or length),
        scales=config.normalize,
    )


FAMILY = transformers_family("encodec", "Encodec", _describe, Encodec, ("encodec",))
