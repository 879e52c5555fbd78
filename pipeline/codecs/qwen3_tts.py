"""The tokenizer of Qwen3-TTS at 12 Hz: 24 kHz, 12.5 frames a second, 16 codebooks of 2048.

It encodes as Mimi does, with the first of its codebooks, and has a decoder of its own (`qwen3_tts_decoder.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moss_tok.checkpoint import Checkpoint
from pipeline.codecs.config_file import read_config
from pipeline.codecs.plain_models import fill
from pipeline.codecs.protocol import Codebook, CodecDescription, Family, Parts
from pipeline.codecs.qwen3_tts_config import DecoderConfig
from pipeline.codecs.qwen3_tts_decoder import Decoder
from pipeline.codecs.torch_clips import TorchClips
from pipeline.codecs.transformers_models import config_of, import_transformers


class Encoder(nn.Module):
    """The parts of `MimiModel` that encode, under the names that their weights have here."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        mimi = import_transformers().MimiModel(config)
        self.encoder = mimi.encoder.encoder_seanet
        self.encoder_transformer = mimi.encoder.encoder_transformer
        self.downsample = mimi.encoder.downsample
        self.quantizer = mimi.quantizer

    def forward(self, batch: Tensor) -> Tensor:
        hidden = self.encoder_transformer(self.encoder(batch).transpose(1, 2)).last_hidden_state
        latents: Tensor = self.downsample(hidden.transpose(1, 2))
        return latents


class Tokenizer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder = Encoder(_mimi_config(config))
        self.decoder = Decoder(DecoderConfig.from_json(config["decoder_config"]))


class Qwen3TTS(TorchClips):
    """The model fills up the last frame itself, unlike Mimi here: so its package encodes a clip that is alone."""

    latents_first = True
    padded_to = "nothing"

    def latents(self, batch: Tensor) -> Tensor:
        latents: Tensor = self.model.encoder(batch)
        return latents

    def quantize(self, latents: Tensor) -> Sequence[Tensor]:
        count = len(self.description.codebooks)
        return list(self.model.encoder.quantizer.encode(latents, num_quantizers=count)[:, 0])

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decoder(torch.stack(list(codes))[None])[0]
        return audio


def _mimi_config(config: Mapping[str, Any]) -> Any:
    return config_of("Mimi", {**config["encoder_config"], "decoder_config": None})


def _describe(config: Mapping[str, Any]) -> CodecDescription:
    encoder, decoder = _mimi_config(config), DecoderConfig.from_json(config["decoder_config"])
    count, rate = int(config["encoder_valid_num_quantizers"]), int(config["input_sample_rate"])
    encoded = (encoder.sampling_rate, encoder.audio_channels, encoder.frame_size, encoder.codebook_size, count)
    decoded = (
        config["output_sample_rate"], 1, decoder.samples_per_frame, decoder.codebook_size, decoder.num_quantizers,
    )  # fmt: skip
    if not encoded == decoded == (rate, 1, config["encode_downsample_rate"], encoder.codebook_size, count):
        raise ValueError(f"what it encodes {encoded} is not what it decodes {decoded}: Hz, channels, samples, codes")
    return CodecDescription(
        family="qwen3_tts",
        sample_rate=rate,
        channels=1,
        codebooks=(Codebook(encoder.codebook_size, encoder.frame_size),) * count,
        trained=config.get("trained") is not False,
    )


def _load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> Qwen3TTS:
    config = read_config(checkpoint)
    return Qwen3TTS(_describe(config), fill(Tokenizer(config), checkpoint), device)


FAMILY = Family(
    name="qwen3_tts",
    describe=_describe,
    load=_load,
    model_types=("qwen3_tts_tokenizer_12hz",),
    packages=("transformers",),
)
