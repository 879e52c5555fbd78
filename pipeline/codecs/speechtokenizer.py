"""SpeechTokenizer, through its package: 16 kHz, 50 frames a second, 8 codebooks of 1024."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from moss_tok.checkpoint import Checkpoint
from pipeline.codecs.config_file import read_config
from pipeline.codecs.plain_models import fill, import_without_init
from pipeline.codecs.protocol import Codebook, CodecDescription, Family, Parts
from pipeline.codecs.torch_clips import TorchClips


class SpeechTokenizer(TorchClips):
    """The model fills up the last frame itself."""

    padded_to = "nothing"

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        return list(self.model.encode(waveform[None])[:, 0]), None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decode(torch.stack(list(codes))[:, None])[0]
        return audio


def _describe(config: Mapping[str, Any]) -> CodecDescription:
    codebook = Codebook(int(config["codebook_size"]), math.prod(config["strides"]))
    return CodecDescription(
        family="speechtokenizer",
        sample_rate=int(config["sample_rate"]),
        channels=1,
        codebooks=(codebook,) * int(config["n_q"]),
        trained=config.get("trained") is not False,
    )


def _load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> SpeechTokenizer:
    config = read_config(checkpoint)
    model = import_without_init("speechtokenizer", "model", "speechtokenizer").SpeechTokenizer(dict(config))
    return SpeechTokenizer(_describe(config), fill(model, checkpoint), device)


FAMILY = Family(
    name="speechtokenizer",
    describe=_describe,
    load=_load,
    recognises=lambda config: {"n_q", "strides", "semantic_dimension", "codebook_size"} <= config.keys(),
    packages=("speechtokenizer",),
)
