"""Matrix products whose rows do not depend on how many rows came along.

A BLAS picks its kernel by the shape of the product, so the same row can come out with other bits in another batch.
Measured on CPU in float32 (docs/decisions/0010-bits-of-a-row.md): a row's bits are constant for any number of threads
where the numbers of rows and of outputs are multiples of 16. So rows are padded with zeros to that multiple, once for
a whole stage, and other weights are padded at load. On a GPU every product runs at one fixed number of rows:
`RowBudget.static`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW_MULTIPLE = 16
OUTPUT_MULTIPLE = 16


@dataclass(frozen=True)
class RowBudget:
    """How many rows go through a layer together: groups of `size`, a multiple of ROW_MULTIPLE, and a shorter last one;
    `static` makes that one as long as the others, so that no other number ever occurs."""

    size: int
    static: bool = False

    def padded(self, rows: int) -> int:
        """The number of rows to compute for `rows` rows."""
        multiple = self.size if self.static else ROW_MULTIPLE
        return -(-rows // multiple) * multiple

    def chunks(self, rows: int) -> Iterator[slice]:
        """Cut a padded number of rows into groups."""
        return (slice(start, min(start + self.size, rows)) for start in range(0, rows, self.size))


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
    """x (rows, inputs) times the transpose of weight (outputs, inputs), in a multiple of ROW_MULTIPLE rows."""
    rows = x.shape[0]
    missing = -rows % ROW_MULTIPLE
    return F.linear(F.pad(x, (0, 0, 0, missing)), weight)[:rows] if missing else F.linear(x, weight)
