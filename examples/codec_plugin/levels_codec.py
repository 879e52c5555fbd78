"""A codec for moss-tok in a package of its own: two codebooks of levels, one for each sample and one for what is left.

Its model is a folder with config.json, such as {"model_type": "levels", "sample_rate": 8000, "levels": 256}, and
model.safetensors with the tensor `levels`, float32 (2, levels), ascending.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from moss_tok.checkpoint import Checkpoint
from pipeline.codecs import Codebook, CodecDescription, Coded, Family
from pipeline.codecs.config_file import read_config
from pipeline.codecs.whole_clips import WholeClips


class Levels(WholeClips):
    """The base class asks for these two methods, and does the rest."""

    def __init__(self, description: CodecDescription, levels: np.ndarray) -> None:
        super().__init__(description)
        self._levels = levels

    def encode_clip(self, waveform: np.ndarray) -> Coded:
        left, codes = waveform[0], []
        for levels in self._levels:
            codes.append(np.searchsorted((levels[1:] + levels[:-1]) / 2, left))
            left = left - levels[codes[-1]]
        return Coded(np.stack(codes))

    def decode_clip(self, clip: Coded, num_samples: int) -> np.ndarray:
        layers = [levels[codes] for levels, codes in zip(self._levels, clip.codes, strict=False)]
        sound: np.ndarray = np.stack(layers).sum(axis=0, dtype=np.float32)
        return sound[None]


def describe(config: Mapping[str, Any]) -> CodecDescription:
    return CodecDescription(
        family="levels",
        sample_rate=config["sample_rate"],
        channels=1,
        codebooks=(Codebook(config["levels"], samples_per_code=1),) * 2,
    )


def load(checkpoint: Checkpoint, device: str, dtype: str, parts: str) -> Levels:
    (weights,) = checkpoint.weights_files
    return Levels(describe(read_config(checkpoint)), load_file(weights)["levels"])


FAMILY = Family(name="levels", describe=describe, load=load, model_types=("levels",), packages=("levels-codec",))
