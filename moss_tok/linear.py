"""Matrix products whose rows do not depend on how many rows came along.

A BLAS picks its kernel by the shape of the product, so the same row can come out with other bits in another batch.
Measured on CPU in float32 (docs/decisions/0010-bits-of-a-row.md): a row's bits are constant from MIN_ROWS rows up, for
any number of threads, where the number of outputs is a multiple of OUTPUT_MULTIPLE. So fewer rows are padded with zeros
here, and other weights are padded at load. On a GPU every product runs at one fixed number of rows: `RowBudget.static`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_ROWS = 16
OUTPUT_MULTIPLE = 16


@dataclass(frozen=True)
class RowBudget:
    """How many rows go through a layer together; `static` pads the last group, so that no other number ever occurs."""

    size: int
    static: bool = False

    def padded(self, rows: int) -> int:
        return -(-rows // self.size) * self.size if self.static else rows

    def chunks(self, rows: int) -> Iterator[slice]:
        """Cut `rows` into slices of `size`; the last one is longer rather than shorter than MIN_ROWS."""
        start = 0
        while start < rows:
            end = rows if rows - start < self.size + MIN_ROWS else start + self.size
            yield slice(start, end)
            start = end


class Linear(nn.Module):
    """y = x W^T, W (outputs, inputs), without bias, for x (rows, inputs) with any number of rows."""

    padded: Tensor | None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        self.register_buffer("padded", None, persistent=False)

    def prepare(self) -> None:
        """Make the padded copy of a weight whose number of outputs is no multiple of OUTPUT_MULTIPLE."""
        missing = -self.outputs % OUTPUT_MULTIPLE
        self.padded = F.pad(self.weight, (0, 0, 0, missing)) if missing else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.padded is None else self.padded
        y = multiply_rows(x.to(weight.dtype), weight)
        # Contiguous, because torch's GELU has another kernel, with other bits, for strided rows.
        return y if self.padded is None else y[:, : self.outputs].contiguous()


def multiply_rows(x: Tensor, weight: Tensor) -> Tensor:
    """x (rows, inputs) times the transpose of weight (outputs, inputs), computed with at least MIN_ROWS rows."""
    rows = x.shape[0]
    if rows < MIN_ROWS:
        return F.linear(F.pad(x, (0, 0, 0, MIN_ROWS - rows)), weight)[:rows]
    return F.linear(x, weight)
