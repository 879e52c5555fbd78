"""How far another precision changes a codec's codes and its sound: see moss_tok/agreement.py for the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moss_tok.agreement import Agreement, Distances, mel_distance, stft_distance
from pipeline.codecs.protocol import Codec, Coded
from pipeline.codecs.registry import CodecSource, load_codec
from pipeline.items import as_matrix

BATCH = 8


def agreement(
    source: CodecSource, dtype: str, waveforms: Sequence[np.ndarray], device: str, num_quantizers: int | None = None
) -> Agreement:
    """Encode waveforms (channels, samples), at the codec's rate, in float32 and in `dtype`, and compare.

    Raises CodecError for a precision or a number of codebooks that the codec does not have.
    """
    description = source.description
    count = len(description.first(num_quantizers))
    other_codec = load_codec(source, device, dtype, parts="encoder")
    codec = load_codec(source, device)
    reference, other = (_encode(each, waveforms, count) for each in (codec, other_codec))
    pairs = zip(reference, other, strict=True)
    equal = np.concatenate([as_matrix(one.codes) == as_matrix(two.codes) for one, two in pairs], axis=1)
    return Agreement(
        model=source.name,
        dtype=dtype,
        clips=len(waveforms),
        frames=equal.shape[1],
        seconds=sum(waveform.shape[1] for waveform in waveforms) / description.sample_rate,
        layers=tuple(equal.mean(axis=1).tolist()),
        frames_equal=float(equal.all(axis=0).mean()),
        reference=_distances(codec, waveforms, reference),
        other=_distances(codec, waveforms, other),
        reference_numerics=codec.numerics,
        numerics=other_codec.numerics,
    )


def _encode(codec: Codec, waveforms: Sequence[np.ndarray], num_quantizers: int) -> list[Coded]:
    batches = (waveforms[start : start + BATCH] for start in range(0, len(waveforms), BATCH))
    return [coded for batch in batches for coded in codec.launch(batch, num_quantizers).result()]


def _distances(codec: Codec, waveforms: Sequence[np.ndarray], codes: Sequence[Coded]) -> Distances:
    mels, stfts = [], []
    for waveform, coded in zip(waveforms, codes, strict=True):
        (sound,) = codec.decode([coded], [waveform.shape[1]])
        original, decoded = (
            torch.from_numpy(np.ascontiguousarray(each)) for each in (waveform, _same_rate(codec, sound))
        )
        decoded = decoded[:, : original.shape[1]]
        mels.append(mel_distance(original, decoded, codec.description.sample_rate))
        stfts.append(stft_distance(original, decoded))
    return Distances(mel=sum(mels) / len(mels), stft=sum(stfts) / len(stfts))


def _same_rate(codec: Codec, sound: np.ndarray) -> np.ndarray:
    """Decoded sound at the rate of what was encoded."""
    description = codec.description
    if description.output_rate == description.sample_rate:
        return sound
    from moss_tok import audio

    return audio.resample(sound, description.output_rate, description.sample_rate)
