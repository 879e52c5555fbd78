"""How much codes say."""

from __future__ import annotations

import numpy as np


def entropy(counts: np.ndarray) -> np.ndarray:
    """Bits per code of each layer of `counts` (num_quantizers, codebook_size): (num_quantizers,), 0 without codes.

    H = -sum p log2 p of the codes' relative frequencies (Shannon, 1948). Of few frames it comes out too small, by
    about (codebook_size - 1) / (2 frames ln 2) bits (Miller, 1955): 0.07 bits at ten frames a code.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logarithm = np.log2(share, out=np.zeros_like(share), where=share > 0)
    bits: np.ndarray = np.maximum(-(share * logarithm).sum(axis=1), 0.0)
    return bits
