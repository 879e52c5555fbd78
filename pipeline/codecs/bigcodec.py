"""BigCodec, through the (unofficial) package of that name: 16 kHz, 80 frames a second, one codebook of 8192."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from moss_tok.checkpoint import Checkpoint
from pipeline.codecs.config_file import read_config
from pipeline.codecs.plain_models import fill, import_package
from pipeline.codecs.protocol import Codebook, CodecDescription, Family, Parts
from pipeline.codecs.torch_clips import TorchClips

SAMPLE_RATE = 16_000  # of the published model; its configuration does not say


class BigCodec(TorchClips):
    """A clip is padded with zeros to whole frames."""

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        return list(self.model.encode(waveform[None])[:, 0]), None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        audio: Tensor = self.model.decode(torch.stack(list(codes))[:, None])[0]
        return audio


def _describe(config: Mapping[str, Any]) -> CodecDescription:
    codebook = Codebook(int(config["codebook_size"]), math.prod(config["up_ratios"]))
    return CodecDescription(
        family="bigcodec",
        sample_rate=int(config.get("sample_rate", SAMPLE_RATE)),
        channels=1,
        codebooks=(codebook,) * int(config["vq_num_quantizers"]),
        trained=config.get("trained") is not False,
    )


def _load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> BigCodec:
    config = read_config(checkpoint)
    names = ("ngf", "use_rnn", "rnn_bidirectional", "rnn_num_layers", "up_ratios", "dilations", "out_channels")
    more = ("codebook_size", "vq_num_quantizers", "codebook_dim")
    settings = {name: config[name] for name in (*names, *more)}
    model = import_package("bigcodec", "bigcodec").BigCodec(**settings)
    return BigCodec(_describe(config), fill(model, checkpoint), device)


FAMILY = Family(
    name="bigcodec",
    describe=_describe,
    load=_load,
    recognises=lambda config: {"ngf", "up_ratios", "vq_num_quantizers"} <= config.keys(),
    packages=("bigcodec",),
)
