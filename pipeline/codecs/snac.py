"""SNAC, through its package: three or four codebooks of 4096, each at a frame rate of its own."""

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

SEED = 0
"""Of the noise that the decoder adds, so that codes always give the same sound."""


class Snac(TorchClips):
    """A clip is padded with zeros to whole codes of the coarsest codebook, and to whole windows of attention."""

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        return [codes[0] for codes in self.model.encode(waveform[None])], None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(SEED)
            audio: Tensor = self.model.decode([layer[None] for layer in codes])[0]
        return audio


def _describe(config: Mapping[str, Any]) -> CodecDescription:
    hop = math.prod(config["encoder_rates"])
    strides = config["vq_strides"]
    size = int(config["codebook_size"])
    return CodecDescription(
        family="snac",
        sample_rate=int(config["sampling_rate"]),
        channels=1,
        codebooks=tuple(Codebook(size, hop * stride) for stride in strides),
        prefix=False,
        padding=hop * math.lcm(strides[0], config.get("attn_window_size") or 1),
        trained=config.get("trained") is not False,
    )


def _load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> Snac:
    config = dict(read_config(checkpoint))
    settings = {name: value for name, value in config.items() if name not in ("model_type", "trained")}
    model = import_package("snac", "snac").SNAC(**settings)
    return Snac(_describe(config), fill(model, checkpoint), device)


FAMILY = Family(
    name="snac",
    describe=_describe,
    load=_load,
    model_types=("snac",),
    recognises=lambda config: {"vq_strides", "encoder_rates", "decoder_rates"} <= config.keys(),
    packages=("snac",),
)
