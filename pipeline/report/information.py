"""How much information codes hold: use and entropy of each codebook, and the bit rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.dataset.statistics import entropy


@dataclass(frozen=True, slots=True)
class Information:
    """Figures of each RVQ layer, first layer first, each an array (num_quantizers,)."""

    used: np.ndarray
    """Fraction of the codebook's codes that occur."""
    entropy: np.ndarray
    """Bits per code: see pipeline/dataset/statistics.py."""
    top: np.ndarray
    """Fraction of the codes that are the most frequent one."""
    bits: np.ndarray
    """Bits that a code could hold: log2 of its codebook's size."""
    rates: np.ndarray
    """Codes per second."""
    frames: int
    """Frames that were counted, of the codebook that has the most."""

    @property
    def nominal_bits(self) -> float:
        """Of the largest codebook."""
        return float(self.bits.max())

    @property
    def frame_rate(self) -> float:
        """Frames per second, of the codebook that has the most."""
        return float(self.rates.max())

    @property
    def too_few(self) -> bool:
        """Whether there are fewer than ten frames per code, so that the entropy is underestimated."""
        return self.frames < 10 * 2**self.nominal_bits

    @property
    def nominal_rate(self) -> np.ndarray:
        """Bits per second of the first 1, 2, … layers, every code at its nominal size."""
        return np.asarray(np.cumsum(self.bits * self.rates))

    @property
    def entropy_rate(self) -> np.ndarray:
        """Bits per second of the first 1, 2, … layers, from the entropy of each."""
        return np.asarray(np.cumsum(self.entropy * self.rates))


def measure(
    counts: np.ndarray, frame_rate: float | Sequence[float], sizes: Sequence[int] | None = None
) -> Information | None:
    """Figures of int64 counts (num_quantizers, largest codebook_size); None where no frame was counted.

    `frame_rate` is that of all layers or of each; `sizes` are the codebooks' where they differ.
    """
    layers, largest = counts.shape
    frames = counts.sum(axis=1)
    if not frames.any():
        return None
    books = np.array([largest] * layers if sizes is None else sizes)
    return Information(
        used=np.count_nonzero(counts, axis=1) / books,
        entropy=entropy(counts),
        top=counts.max(axis=1) / np.maximum(frames, 1),
        bits=np.log2(books),
        rates=np.broadcast_to(np.asarray(frame_rate, np.float64), (layers,)),
        frames=int(frames.max()),
    )
