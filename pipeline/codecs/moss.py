"""The family of the MOSS Audio Tokenizer. It loads no torch before a codec is loaded: that is in `moss_codec.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moss_tok.checkpoint import Checkpoint
from moss_tok.config import MossAudioTokenizerConfig
from pipeline.codecs.protocol import MOSS, Codebook, Codec, CodecDescription, Family, Parts


def describe(config: MossAudioTokenizerConfig) -> CodecDescription:
    codebook = Codebook(config.quantizer.codebook_size, config.downsample_rate)
    return CodecDescription(
        family=MOSS,
        sample_rate=config.sampling_rate,
        channels=config.number_channels,
        codebooks=(codebook,) * config.quantizer.num_quantizers,
        trained=config.trained,
        streams=True,
    )


def _load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> Codec:
    from pipeline.codecs.moss_codec import load

    return load(checkpoint, device, dtype, parts)


def _recognises(config: Mapping[str, Any]) -> bool:
    return "MossAudioTokenizerModel" in (config.get("architectures") or ()) or "encoder_kwargs" in config


FAMILY = Family(
    name=MOSS,
    describe=lambda config: describe(MossAudioTokenizerConfig.from_dict(config)),
    load=_load,
    model_types=("moss-audio-tokenizer",),
    recognises=_recognises,
    decisive=lambda config: MossAudioTokenizerConfig.from_dict(config).to_dict(),
    dtypes=("float32", "bfloat16"),
)
