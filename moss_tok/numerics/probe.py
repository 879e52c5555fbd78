"""Whether a way of computing gives a row the same bits wherever it is and whatever rows are beside it.

What is used is what is probed: the very shapes of the model, every number of rows that its groups can have, and in each
of them every place. Five rows take turns at the places, so one product shows whether all places agree, and the rows of
all products are compared with each other. Threads need no probe, because a task runs on one thread (lanes.py).

The data make differences visible. Each row and each weight hold the same numbers twice, in different orders, once with
the sign turned. So the exact product is zero, and the result is nothing but the rounding errors of the order in which
the terms were added. Another order gives other values in every output, also in bfloat16, where the rounding of an
ordinary result would hide most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from moss_tok.numerics.ways import Kernel, Way

DISTINCT_ROWS = 5  # has no divisor in common with any tile of a kernel
DISTINCT_OUTPUTS = 64  # weights that differ; more outputs repeat them, which no kernel sees

Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RowOperation:
    """An operation of a model on each row, to be probed: `function` of rows like `sample` (rows, n)."""

    name: str
    function: Rows
    sample: Tensor


class Probe:
    """The findings of this process. Each way is probed once with each shape."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._constant: dict[Hashable, bool] = {}

    def constant(self, way: Way, inputs: int, outputs: int) -> bool:
        """Whether products with a weight (outputs, inputs) are constant this way."""
        return self._remembered((way, inputs, outputs), lambda: product_is_constant(way, inputs, outputs))

    def operation(self, operation: RowOperation, sizes: tuple[int, ...]) -> bool:
        """Whether an operation of this name and shape gives a row the same bits everywhere."""
        key = (operation.name, operation.sample.shape, operation.sample.dtype, sizes)
        return self._remembered(key, lambda: rows_are_constant(operation.function, operation.sample, sizes))

    def forget(self) -> None:
        """Forget all findings, as a new process would."""
        with self._lock:
            self._constant.clear()

    def _remembered(self, key: Hashable, find: Callable[[], bool]) -> bool:
        with self._lock:
            found = self._constant.get(key)
        if found is None:
            found = find()
            with self._lock:
                self._constant[key] = found
        return found


probe = Probe()


def product_is_constant(way: Way, inputs: int, outputs: int) -> bool:
    """Try the products of all numbers of rows that the way has."""
    if way.kernel is Kernel.ROW:
        return True
    rows, weight = cancelling(inputs, outputs, way.dtype)
    try:
        operand = way.operand(weight)
        return rows_are_constant(lambda x: way.multiply(x, operand, outputs), rows, way.sizes)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False  # this torch, or this CPU, does not have it


def rows_are_constant(function: Rows, rows: Tensor, sizes: Sequence[int]) -> bool:
    """Whether `function` gives each of `rows` (DISTINCT_ROWS, n) the same bits at every place of every size."""
    expected: Tensor | None = None
    for index, size in enumerate((sizes[0], *sizes)):
        # Every second time somewhere inside a buffer, as the groups of a batch are; and then beside other rows.
        start = 16 * (index % 2)
        places = torch.arange(start + size, device=rows.device) % len(rows)
        result = function(rows[places][start:])
        if expected is None:
            first = (torch.arange(len(rows), device=rows.device) - start) % len(rows)
            expected = result[first]
        if not torch.equal(result, expected[places[start:]]):
            return False
    return True


def cancelling(inputs: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows (DISTINCT_ROWS, inputs) and a weight (outputs, inputs) whose exact products are zero; see above."""
    draw = torch.Generator().manual_seed(inputs)
    half = inputs // 2
    order = torch.randperm(inputs, generator=draw)
    rows = torch.randn(DISTINCT_ROWS, half, generator=draw).to(dtype)
    weights = torch.randn(min(outputs, DISTINCT_OUTPUTS), half, generator=draw).to(dtype)
    rest = inputs - 2 * half
    rows = torch.cat([rows, rows, rows.new_zeros(len(rows), rest)], dim=1)[:, order]
    weights = torch.cat([weights, -weights, weights.new_zeros(len(weights), rest)], dim=1)[:, order]
    repeated = weights.repeat(-(-outputs // len(weights)), 1)[:outputs]
    return rows.contiguous(), repeated.contiguous()


def ordinary(features: int, dtype: torch.dtype, spread: float = 3.0) -> Tensor:
    """Rows (DISTINCT_ROWS, features) for operations that are not products, with values of every magnitude that
    activations have."""
    draw = torch.Generator().manual_seed(features)
    return (torch.randn(DISTINCT_ROWS, features, generator=draw) * spread).to(dtype)


def first_constant(ways: Sequence[Way], shapes: Iterable[tuple[int, int]]) -> Way:
    """The first way that is constant for all shapes (inputs, outputs). The last way must be constant by
    construction."""
    small_first = sorted(set(shapes), key=lambda shape: shape[0] * shape[1])
    for way in ways:
        if all(probe.constant(way, inputs, outputs) for inputs, outputs in small_first):
            return way
    raise ValueError("none of the ways to multiply is constant: the last one must be, by construction")
