"""A linear layer in which a row's result does not depend on the other rows. How it multiplies is chosen in
numerics/."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from moss_tok.numerics import Product, Way, Work, choose, unprobed


class Linear(nn.Module):
    """y = x W^T, W (outputs, inputs), without bias, for x (rows, inputs) with any number of rows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        # No buffer: what has a library's own layout can neither be moved nor be saved.
        self.product: Product | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(inputs, outputs)."""
        outputs, inputs = self.weight.shape
        return inputs, outputs

    def prepare(self, way: Way | None = None) -> None:
        """Make what the products use of the weight, on its present device. Call it after loading and after every move.

        Without `way`, one is chosen for this layer alone.
        """
        if way is None:
            on_cpu, dtype = self.weight.device.type == "cpu", self.weight.dtype
            way = (choose(Work([self.shape]), Work([]), dtype) if on_cpu else unprobed(dtype)).products
        self.product = Product(way, self.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        assert self.product is not None, "prepare() comes before the first product"
        return self.product(x.to(self.weight.dtype))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"product": self.product and self.product.way}

    def __setstate__(self, state: dict[str, Any]) -> None:
        way = state.pop("product")
        super().__setstate__(state | {"product": None})  # type: ignore[no-untyped-call]
        if way is not None:
            self.prepare(way)  # a copy of the module makes its own
