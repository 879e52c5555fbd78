"""How much information codes hold: use and entropy of each codebook, and the bit rates."""

from __future__ import annotations

import math
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
    nominal_bits: float
    """Bits that a code could hold: log2(codebook_size)."""
    frame_rate: float
    """Frames per second."""
    frames: int
    """Frames that were counted."""

    @property
    def too_few(self) -> bool:
        """Whether there are fewer than ten frames per code, so that the entropy is underestimated."""
        return self.frames < 10 * 2**self.nominal_bits

    @property
    def nominal_rate(self) -> np.ndarray:
        """Bits per second of the first 1, 2, … layers, every code at its nominal size."""
        return np.arange(1, len(self.entropy) + 1) * self.nominal_bits * self.frame_rate

    @property
    def entropy_rate(self) -> np.ndarray:
        """Bits per second of the first 1, 2, … layers, from the entropy of each."""
        return np.asarray(np.cumsum(self.entropy) * self.frame_rate)


def measure(counts: np.ndarray, frame_rate: float) -> Information | None:
    """Figures of int64 counts (num_quantizers, codebook_size); None where no frame was counted."""
    frames = int(counts[0].sum())
    if frames == 0:
        return None
    return Information(
        used=np.count_nonzero(counts, axis=1) / counts.shape[1],
        entropy=entropy(counts),
        top=counts.max(axis=1) / frames,
        nominal_bits=math.log2(counts.shape[1]),
        frame_rate=frame_rate,
        frames=frames,
    )
