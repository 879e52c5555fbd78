"""Converts codes to steps of a sequence and back: all layers in one stream, or one stream per layer with delays.

Shapes: codes are (num_quantizers, frames); steps are (steps, streams).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def flatten(codes: np.ndarray, offset: int, codebook_size: int, separate_layers: bool) -> np.ndarray:
    """int64 (frames * num_quantizers,): all layers of a frame, then those of the next.

    The id is `offset` + code, and with separate layers also + layer * codebook_size.
    """
    ids: np.ndarray = codes.T.astype(np.int64) + _first_ids(len(codes), offset, codebook_size, separate_layers)
    return ids.reshape(-1)


def unflatten(
    ids: np.ndarray, num_quantizers: int, offset: int, codebook_size: int, separate_layers: bool
) -> np.ndarray:
    """The inverse of `flatten`: int16 (num_quantizers, frames). Raises ValueError for ids that are not codes."""
    if len(ids) % num_quantizers:
        raise ValueError(f"{len(ids)} ids are not whole frames of {num_quantizers} codes")
    first = _first_ids(num_quantizers, offset, codebook_size, separate_layers)
    codes = ids.astype(np.int64).reshape(-1, num_quantizers) - first
    if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
        raise ValueError(f"ids outside their layer's codebook of {codebook_size}")
    return np.ascontiguousarray(codes.T).astype(np.int16)


def delay(codes: np.ndarray, delays: Sequence[int], pad: int) -> np.ndarray:
    """int64 (frames + max(delays), num_quantizers): step t of stream q is the code of frame t - delays[q], else `pad`.

    With delays 0, 1, 2, … it is the delay pattern of MusicGen (arXiv 2306.05284) and of MOSS-TTS; with zeros the
    streams are parallel.
    """
    frames = codes.shape[1]
    steps = np.full((frames + max(delays) if frames else 0, len(codes)), pad, np.int64)
    for stream, (layer, late) in enumerate(zip(codes, delays, strict=True)):
        steps[late : late + frames, stream] = layer
    return steps


def undelay(steps: np.ndarray, delays: Sequence[int]) -> np.ndarray:
    """The inverse of `delay`: int16 (num_quantizers, frames)."""
    frames = max(0, len(steps) - max(delays))
    layers = [steps[late : late + frames, stream] for stream, late in enumerate(delays)]
    return np.stack(layers).astype(np.int16)


def _first_ids(num_quantizers: int, offset: int, codebook_size: int, separate_layers: bool) -> np.ndarray:
    layers = np.arange(num_quantizers, dtype=np.int64)
    return offset + layers * codebook_size * separate_layers
