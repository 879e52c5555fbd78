"""How the arithmetic of a stage is carried out: a choice that is made once and is part of what codes depend on.

Other kernels round differently, so the choice is a value: nothing is tuned at run time. On a CPU, rows go through a
layer in groups small enough for its caches. On a GPU every group has one fixed number of rows, so that each product
always has the same shape and the same kernel, whatever the batch; it is also what compiled layers want.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from moss_tok.attention import Span, TiledAttention, WindowAttention, WindowShape, packed_attention
from moss_tok.linear import RowBudget

# Temporaries of this many rows stay in the last-level cache, and below the size from which the C library returns every
# buffer to the kernel (faulting its pages in again costs up to a third of a product).
CPU_ROWS = 1024
# 82 s of audio at 12.5 frames per second.
GPU_FRAMES = 1024

AttentionFactory = Callable[[Sequence[Span], WindowShape, torch.dtype, torch.device], WindowAttention]
LayerFunction = Callable[..., Any]


@dataclass(frozen=True)
class Execution:
    """`static_frames`: frames in one fixed group of rows, None for groups of CPU_ROWS rows with a shorter last one.
    `attention` makes the windowed attention of a batch. `compile_backend` compiles the layers with `torch.compile`."""

    static_frames: int | None
    attention: AttentionFactory
    compile_backend: str | Callable[..., Any] | None = None

    @classmethod
    def for_device(cls, device: torch.device, dtype: torch.dtype) -> Execution:
        """The default: packed kernels on CUDA where the precision has them, tiles elsewhere."""
        packed = device.type == "cuda" and dtype == torch.bfloat16
        return cls(GPU_FRAMES if device.type == "cuda" else None, packed_attention if packed else TiledAttention)

    def budget(self, steps_per_frame: int) -> RowBudget:
        """The groups of rows of a stage with that many steps per frame."""
        if self.static_frames is None:
            return RowBudget(CPU_ROWS)
        return RowBudget(self.static_frames * steps_per_frame, static=True)

    def function(self, method: LayerFunction) -> LayerFunction:
        """A layer's method, compiled if so configured."""
        return method if self.compile_backend is None else _compiled(method, self.compile_backend)


@cache
def _compiled(method: LayerFunction, backend: str | Callable[..., Any]) -> LayerFunction:
    compiled: LayerFunction = torch.compile(method, backend=backend, fullgraph=True, dynamic=False)
    return compiled
