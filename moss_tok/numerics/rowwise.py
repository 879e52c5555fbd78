"""Operations on rows that are not products: norms, activations, rotations, sums.

Their kernels work along a row or along all elements, in vectors and a scalar remainder, and elements of the remainder
may be rounded differently. So each operation is probed like the products. One whose result depends on the place of a
row is computed one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

WHOLE_VECTORS = 1024  # elements: no kernel takes more at once, so a multiple of them leaves no rest


def gelu(x: Tensor) -> Tensor:
    """The exact GELU of contiguous x, on a CPU, without a remainder of elements that would go through scalar code."""
    missing = -x.numel() % WHOLE_VECTORS
    if not missing or x.device.type != "cpu":
        return F.gelu(x)
    return F.gelu(F.pad(x.reshape(-1), (0, missing)))[: x.numel()].view(x.shape)


def one_by_one(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """`function` of tensors with the same number of rows, applied to copies of one row of each at a time."""
    return torch.cat([function(*(part[row : row + 1].clone() for part in rows)) for row in range(len(rows[0]))])
