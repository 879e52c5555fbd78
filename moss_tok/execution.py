"""How the arithmetic of a stage is carried out. The choice is made once and is part of what codes depend on.

Other kernels round differently, so the choice is a value, and nothing is tuned at run time. On a CPU, rows go through a
layer in groups of the sizes that the probe found constant (numerics/), each on one thread. On a GPU every group has one
fixed number of rows, so that each product always has the same shape and the same kernel, whatever the batch. Compiled
layers want that too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch

from moss_tok.attention import Span, TiledAttention, WindowAttention, WindowShape, packed_attention
from moss_tok.lanes import run_in_lanes
from moss_tok.numerics import Way
from moss_tok.search import SearchFactory, one_kernel

# 82 s of audio at 12.5 frames per second.
GPU_FRAMES = 1024
COMPILER = "inductor"
# Of one function in a process: one for each stage of each codec, and a codec has up to eight. torch gives up after 8.
COMPILED_GRAPHS = 64

AttentionFactory = Callable[[Sequence[Span], WindowShape, torch.dtype, torch.device], WindowAttention]
LayerFunction = Callable[..., Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Execution:
    """A choice of how to compute.

    `static_frames` is the number of frames in one fixed group of rows, or None for groups of the sizes of the way to
    multiply. `attention` makes the windowed attention of a batch. `compile_backend` compiles the layers with
    `torch.compile`. `search` makes the search for the codes of all quantizers at once; None searches by products. Its
    name is part of `Numerics`, since it is probed.
    """

    static_frames: int | None
    attention: AttentionFactory
    compile_backend: str | Callable[..., Any] | None = None
    search: SearchFactory | None = None

    @classmethod
    def for_device(cls, device: torch.device, dtype: torch.dtype) -> Execution:
        """The default for a device: packed kernels and compiled layers on CUDA in bfloat16, tiles elsewhere."""
        if device.type != "cuda":
            return cls(None, TiledAttention)
        if dtype != torch.bfloat16:
            return cls(GPU_FRAMES, TiledAttention, search=one_kernel)
        return cls(GPU_FRAMES, packed_attention, COMPILER, one_kernel)

    @property
    def name(self) -> str:
        """What is not the default of a CPU, to be put behind the name of the kernels."""
        frames = "" if self.static_frames is None else f"; groups of {self.static_frames} frames"
        compiled = "" if self.compile_backend is None else f"; compiled by {self.compile_backend}"
        kernel = "" if self.attention is TiledAttention else f"; {getattr(self.attention, '__name__', 'attention')}"
        return frames + kernel + compiled

    def groups(self, rows: int, steps_per_frame: int, way: Way) -> tuple[slice, ...]:
        """The groups in which a stage with so many steps per frame computes so many rows. The last group may extend
        beyond the rows."""
        if self.static_frames is None:
            return way.groups(rows, torch.get_num_threads())
        size = self.static_frames * steps_per_frame
        return tuple(slice(start, start + size) for start in range(0, rows, size))

    def run(self, tasks: Sequence[Callable[[], Result]], device: torch.device) -> list[Result]:
        """Run tasks that share no data: at the same time on a CPU, in order on a GPU."""
        return run_in_lanes(tasks) if device.type == "cpu" else [task() for task in tasks]

    def function(self, method: LayerFunction) -> LayerFunction:
        """A method of a layer, compiled if so configured."""
        return method if self.compile_backend is None else _compiled(method, self.compile_backend)


@cache
def _compiled(method: LayerFunction, backend: str | Callable[..., Any]) -> LayerFunction:
    import torch._dynamo  # for seconds: only where layers are compiled

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_GRAPHS)
    # The compiler measures nothing, so that every process gets the same kernels.
    options: dict[str, Any] | None = {"deterministic": True} if backend == COMPILER else None
    compiled: LayerFunction = torch.compile(method, backend=backend, fullgraph=True, dynamic=False, options=options)
    return compiled
