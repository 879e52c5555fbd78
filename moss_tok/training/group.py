"""Several processes that train one codec: each takes a part of the batch, and gradients are averaged.

On a CPU, processes of one thread do more than one process of many threads: a small layer's products are over before
threads have found together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Group:
    """This process's place among `size`; a size of 1 needs no communication."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, rank: int, size: int, meeting_place: Path, backend: str) -> Group:
        """Meet the other processes at a file that does not exist yet."""
        if size > 1:
            dist.init_process_group(backend, init_method=f"file://{meeting_place}", rank=rank, world_size=size)
        return cls(rank, size)

    def gather(self, x: Tensor) -> Tensor:
        """x (n, …) of all processes end to end, in the order of ranks, without gradients."""
        x = x.detach().contiguous()
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over all processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give the first process's values to all."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def leave(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()
