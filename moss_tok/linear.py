"""Matrix products whose rows do not depend on how many rows came along.

A BLAS picks its kernel by the shape of the product, so the same row can come out with other bits in another batch.
Measured on CPU (docs/decisions/0010-bits-of-a-row.md): oneDNN with a weight in its own layout gives a row the same
bits beside any other rows, on any number of threads, and is the fastest; only a row alone takes another path. The
plain product does so where the numbers of rows and of outputs are multiples of 16. So rows are padded with zeros to
that multiple, once for a whole stage. On a GPU every product runs at one fixed number of rows: `RowBudget.static`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW_MULTIPLE = 16
OUTPUT_MULTIPLE = 16
PACKED_FOR_ROWS = 1024  # the layout suits every number of rows; this one chooses it


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
        # No buffer: what has oneDNN's layout can neither be moved nor be saved.
        self.packed: Tensor | None = None

    def prepare(self) -> None:
        """Make the copy of the weight that products use where it lies now; once loaded, and after every move.

        On a CPU that is the weight in oneDNN's layout, which spares every product the reordering. Elsewhere, and in
        bfloat16, which gains nothing, it is a zero-padded copy if the number of outputs is no multiple of 16.
        """
        self.packed = self.padded = None
        if packs(self.weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.data, PACKED_FOR_ROWS)
        elif missing := -self.outputs % OUTPUT_MULTIPLE:
            self.padded = F.pad(self.weight, (0, 0, 0, missing))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": None}  # a copy of the module makes its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.prepare()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if self.packed is not None:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(padded_rows(x), self.packed, None, "none", [], "")
            return y[: x.shape[0]]
        if self.padded is None:
            return multiply_rows(x, self.weight)
        # Contiguous, because torch's GELU has another kernel, with other bits, for strided rows.
        return multiply_rows(x, self.padded)[:, : self.outputs].contiguous()


def packs(weight: Tensor) -> bool:
    """Whether products with this weight go through oneDNN: it is part of torch on x86, and absent elsewhere."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and weight.device.type == "cpu" and weight.dtype == torch.float32


def padded_rows(x: Tensor) -> Tensor:
    """x (rows, inputs) with rows of zeros added, to a multiple of ROW_MULTIPLE."""
    missing = -x.shape[0] % ROW_MULTIPLE
    return F.pad(x, (0, 0, 0, missing)) if missing else x


def multiply_rows(x: Tensor, weight: Tensor) -> Tensor:
    """x (rows, inputs) times the transpose of weight (outputs, inputs), in a multiple of ROW_MULTIPLE rows."""
    return F.linear(padded_rows(x), weight)[: x.shape[0]]
