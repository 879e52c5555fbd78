"""Converts codes to steps of a sequence and back: all layers in one stream, or one stream per layer with delays.

Shapes: codes are (num_quantizers, frames); steps are (steps, streams).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.schema import code_type


def flatten(
    codes: np.ndarray,
    offset: int,
    codebook_size: int,
    separate_layers: bool,
    repeats: Sequence[int] | None = None,
) -> np.ndarray:
    """int64 (frames * num_quantizers,): all layers of a frame, then those of the next.

    The id is `offset` + code, and with separate layers also + layer * codebook_size. A layer whose codes are there
    `repeats` times each, because its frame rate is lower, has its code only where it begins: by time, and of those
    that begin together the coarser first. So SNAC's are laid out for Orpheus, 7 ids for each of its coarsest codes.
    """
    first = _first_ids(len(codes), offset, codebook_size, separate_layers)
    ids = codes.T.astype(np.int64) + first
    kept: np.ndarray = ids[_begins(len(codes), codes.shape[1], repeats)]
    return kept


def unflatten(
    ids: np.ndarray,
    num_quantizers: int,
    offset: int,
    codebook_size: int,
    separate_layers: bool,
    repeats: Sequence[int] | None = None,
) -> np.ndarray:
    """The inverse of `flatten`: (num_quantizers, frames). Raises ValueError for ids that are no codes."""
    period = 1 if repeats is None else max(repeats)
    begins = _begins(num_quantizers, period, repeats)
    if len(ids) % begins.sum():
        raise ValueError(f"{len(ids)} ids are not whole frames of {begins.sum()} codes")
    frames = len(ids) // int(begins.sum()) * period
    begins = _begins(num_quantizers, frames, repeats)
    spread = np.zeros((frames, num_quantizers), np.int64)
    spread[begins] = ids
    latest = np.maximum.accumulate(np.where(begins, np.arange(frames)[:, None], 0), axis=0)
    first = _first_ids(num_quantizers, offset, codebook_size, separate_layers)
    codes = np.take_along_axis(spread, latest, axis=0) - first
    if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
        raise ValueError(f"ids outside their layer's codebook of {codebook_size}")
    return np.ascontiguousarray(codes.T).astype(code_type(codebook_size))


def _begins(num_quantizers: int, frames: int, repeats: Sequence[int] | None) -> np.ndarray:
    """Where a code begins: (frames, num_quantizers)."""
    each = np.array([1] * num_quantizers if repeats is None else repeats)
    begins: np.ndarray = np.arange(frames)[:, None] % each == 0
    return begins


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


def undelay(steps: np.ndarray, delays: Sequence[int], codebook_size: int = 1024) -> np.ndarray:
    """The inverse of `delay`: (num_quantizers, frames)."""
    frames = max(0, len(steps) - max(delays))
    layers = [steps[late : late + frames, stream] for stream, late in enumerate(delays)]
    return np.stack(layers).astype(code_type(codebook_size))


def _first_ids(num_quantizers: int, offset: int, codebook_size: int, separate_layers: bool) -> np.ndarray:
    layers = np.arange(num_quantizers, dtype=np.int64)
    return offset + layers * codebook_size * separate_layers
