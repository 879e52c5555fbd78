"""Patches: the reshape that trades time steps for channels.

Down takes h steps of D channels to one step of D*h channels: output channel d*h + j is input channel d at step j of its
group. Up is the inverse. In the packed layout (rows, features) a clip is whole frames long, so a group never crosses
from one clip into the next, and a patch is a local reshape of the whole batch.
"""

from __future__ import annotations

from torch import Tensor


def patch_down(x: Tensor, size: int) -> Tensor:
    """Down: (rows, D) -> (rows / size, D * size)."""
    rows, channels = x.shape
    return x.view(rows // size, size, channels).transpose(1, 2).reshape(rows // size, channels * size)


def patch_up(x: Tensor, size: int) -> Tensor:
    """Up: (rows, D * size) -> (rows * size, D)."""
    rows, channels = x.shape
    return x.view(rows, channels // size, size).transpose(1, 2).reshape(rows * size, channels // size)
