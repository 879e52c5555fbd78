"""Figures from a sample of an output's shards: lengths of clips, languages, and the entropy of the codes.

The sampled shards lie at even distances among the committed ones, so the same output always gives the same figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline import schema, storage
from pipeline.parquet import read_columns

Item = TypeVar("Item")

MAX_SHARDS = 8
MAX_BYTES = 64 * 2**20
"""Limit for all sampled shards together, so that a card costs seconds wherever the output is."""

DURATION_EDGES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 600.0, 3600.0)
"""Edges of the histogram of durations, in seconds."""


@dataclass(frozen=True, slots=True)
class SampleStatistics:
    """Figures of the sampled shards. `clips` is 0 if no shard was small enough to be sampled, or none has rows."""

    clips: int
    durations: tuple[int, ...]
    """Number of clips from each edge up to the next, and from the last edge on."""
    frames: int
    languages: Counter[str]
    """Number of clips in each language that the source names."""
    entropy: tuple[float, ...]
    """Bits per code of each layer: see `entropy`."""


def sample_statistics(uris: Sequence[str], num_quantizers: int, codebook_size: int) -> SampleStatistics:
    """The figures of some of the given data objects. Raises DamagedTable for one that cannot be read."""
    layers = [schema.layer_column(layer) for layer in range(num_quantizers)]
    counts = np.zeros((num_quantizers, codebook_size), np.int64)
    durations: list[float] = []
    languages: Counter[str] = Counter()
    left = MAX_BYTES
    for uri in evenly_spaced(uris, MAX_SHARDS):
        info = storage.stat(uri)
        if info is None or info.size > left:
            continue
        left -= info.size
        for batch in read_columns(info, ["duration", "language", *layers]):
            durations += batch.column("duration").to_pylist()
            languages.update(name for name in batch.column("language").to_pylist() if name)
            for layer, name in enumerate(layers):
                codes = batch.column(name).flatten().to_numpy()
                counts[layer] += np.bincount(codes, minlength=codebook_size)
    binned = np.bincount(np.searchsorted(DURATION_EDGES, durations, side="right"), minlength=len(DURATION_EDGES) + 1)
    return SampleStatistics(
        clips=len(durations),
        durations=tuple(binned[1:].tolist()),
        frames=int(counts.sum(axis=1).max()),
        languages=languages,
        entropy=tuple(entropy(counts).tolist()),
    )


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items at even distances, in their order; all of them if there are no more."""
    count = min(count, len(items))
    return [items[position * len(items) // count] for position in range(count)]


def entropy(counts: np.ndarray) -> np.ndarray:
    """Bits per code of each layer; `counts` is (num_quantizers, codebook_size), the result (num_quantizers,).

    H = -sum p log2 p of the relative frequencies of the codes (Shannon, 1948); 0 for a layer without codes. A sample of
    few frames gives too small a value, by about (codebook_size - 1) / (2 frames ln 2) bits (Miller, 1955): 0.07 bits at
    ten frames a code.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logarithm = np.log2(share, out=np.zeros_like(share), where=share > 0)
    bits: np.ndarray = np.maximum(-(share * logarithm).sum(axis=1), 0.0)
    return bits
