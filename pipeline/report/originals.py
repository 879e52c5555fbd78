"""Reads clips of an output from their sources again, as the pipeline reads them."""

from __future__ import annotations

import numpy as np

from pipeline.config import PrepareConfig
from pipeline.dataset.dataset import Output
from pipeline.input_config import InputConfig
from pipeline.items import Clip, ClipEnd, ClipPart, RawClip, Reject, ShardSpec
from pipeline.shard.tokenize import target_of
from pipeline.steps.prepare import prepare_clip
from pipeline.steps.read import SourceChanged, read_shard
from pipeline.storage import StorageError


class OriginalGone(LookupError):
    """A clip cannot be read from its source any more; the message says why."""


def read_original(output: Output, spec: ShardSpec, index: int, audio_xxh3: str, num_samples: int) -> np.ndarray:
    """The beginning of the waveform that was encoded: float32 (channels, num_samples).

    Reads the shard's source up to the clip at position `index`. Raises OriginalGone if that fails, or if the clip's
    hash is not `audio_xxh3`, that of the row: then it is not the audio that was encoded.
    """
    record = output.record
    try:
        items = read_shard(spec, InputConfig.model_validate(record.input))
        raw = next((item for item in items if item.origin.index == index), None)
    except (SourceChanged, StorageError, ValueError, OSError) as error:
        raise OriginalGone(str(error)) from error
    if raw is None:
        raise OriginalGone(f"{spec.place} has no such clip any more")
    if isinstance(raw, Reject):
        raise OriginalGone(raw.message)
    waveform, found = _prepare(raw, PrepareConfig.model_validate(record.prepare), output)
    if found != audio_xxh3:
        raise OriginalGone(f"{raw.origin.source} holds other audio now than what was encoded")
    return waveform[:, :num_samples]


def _prepare(raw: RawClip, config: PrepareConfig, output: Output) -> tuple[np.ndarray, str]:
    """The clip, or the first part of a long one, and the hash of the whole clip."""
    beginning = np.empty((output.record.model.channels, 0), np.float32)
    for item in prepare_clip(raw, config, target_of(output.record)):
        if isinstance(item, Reject):
            raise OriginalGone(item.message)
        if isinstance(item, Clip) or (isinstance(item, ClipPart) and item.start == 0):
            beginning = item.waveform
        if isinstance(item, Clip | ClipEnd):
            return beginning, item.info.audio_xxh3
    raise OriginalGone("the decoder ended without a result")
