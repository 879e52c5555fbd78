"""Ways to multiply rows by a weight, each with the numbers of rows that it is used with.

A BLAS picks its kernel by the shape of a product, so the same row can get other bits beside other rows. Which kernel it
picks depends on the library and on the kind of CPU. So a way is a kernel together with a few numbers of rows. A probe
(probe.py) finds out, before the way is used, whether a row has the same bits in all of them and at every place.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tok.lanes import run_in_lanes

ROW_MULTIPLE = 16
OUTPUT_MULTIPLE = 16
PACKED_FOR_ROWS = 1024  # the packed layout suits every number of rows; this one chooses it
CALL_ROWS = 16  # what a product costs however few its rows are, in rows


class Kernel(Enum):
    """Which library multiplies."""

    ONEDNN = "oneDNN"  # with the weight in its own layout
    BLAS = "BLAS"  # torch's plain product: MKL on x86, cuBLAS on a GPU
    ROW = "row by row"  # the plain product of one row at a time: it cannot see another row


@dataclass(frozen=True)
class Way:
    """`kernel` in products of `sizes` rows, ascending multiples of ROW_MULTIPLE; of any number where empty (on a GPU,
    and row by row). `dtype` is what it multiplies in: float32 for a model in bfloat16 means products of rounded
    values, rounded again at the end."""

    kernel: Kernel
    sizes: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        """A description, such as "oneDNN float32 in 16..256 rows"."""
        name = f"{self.kernel.value} {str(self.dtype).removeprefix('torch.')}"
        if not self.sizes:
            return name
        return f"{name} in {'/'.join(map(str, self.sizes))} rows"

    def operand(self, weight: Tensor) -> Tensor:
        """The weight (outputs, inputs) in the form that `multiply` needs, which may be the weight itself."""
        weight = weight.to(self.dtype)
        if self.kernel is Kernel.ONEDNN:
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS)
            return packed
        missing = -weight.shape[0] % OUTPUT_MULTIPLE
        return F.pad(weight, (0, 0, 0, missing)) if missing else weight.contiguous()

    def multiply(self, x: Tensor, operand: Tensor, outputs: int) -> Tensor:
        """x (rows, inputs) times the transpose of the weight, (rows, outputs), for one of `sizes` rows."""
        if self.kernel is Kernel.ONEDNN:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, operand, None, "none", [], "")
            return y
        if self.kernel is Kernel.ROW:
            y = torch.cat([F.linear(x[row : row + 1].clone(), operand) for row in range(x.shape[0])])
        else:
            y = F.linear(x, operand)
        # Contiguous, because torch's GELU has another kernel, with other bits, for strided rows.
        return y if y.shape[1] == outputs else y[:, :outputs].contiguous()

    def groups(self, rows: int, lanes: int = 1) -> tuple[slice, ...]:
        """Cut rows into groups of `sizes`, for so many lanes. The last group may extend beyond `rows`."""
        if not self.sizes:
            return (slice(0, rows),)
        return _groups(rows, self.sizes, lanes)


class Product:
    """y = x W^T for one weight (outputs, inputs), carried out in one way, for x with any number of rows."""

    def __init__(self, way: Way, weight: Tensor) -> None:
        self.way, self.weight = way, weight
        self.operand = way.operand(weight)

    def __call__(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not torch.compiler.is_compiling() and torch.get_num_threads() > 1:
            return run_in_lanes([lambda: self._multiply(x)])[0]  # a kernel that is split has other bits
        return self._multiply(x)

    def _multiply(self, x: Tensor) -> Tensor:
        way, rows, outputs = self.way, x.shape[0], self.weight.shape[0]
        given = x.dtype
        x = x.to(way.dtype)
        if not way.sizes or rows in way.sizes:
            return way.multiply(x, self.operand, outputs).to(given)
        groups = way.groups(rows)
        x = F.pad(x, (0, 0, 0, groups[-1].stop - rows))
        y = torch.cat([way.multiply(x[group], self.operand, outputs) for group in groups])
        return y[:rows].to(given)

    def __getstate__(self) -> tuple[Way, Tensor]:
        return self.way, self.weight  # oneDNN's layout can neither be copied nor be saved

    def __setstate__(self, state: tuple[Way, Tensor]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _groups(rows: int, sizes: tuple[int, ...], lanes: int) -> tuple[slice, ...]:
    """Whole groups of the largest size as long as each lane gets its share, then the cheapest of smaller groups and
    padding."""
    share = rows // lanes * 5 // 4
    usable = tuple(size for size in sizes if lanes == 1 or size <= share) or sizes[:1]
    chosen = [usable[-1]] * (rows // usable[-1]) + _cheapest(rows % usable[-1], usable)
    edges = [0, *itertools.accumulate(sorted(chosen, reverse=True))]
    return tuple(slice(start, stop) for start, stop in itertools.pairwise(edges))


def _cheapest(rows: int, sizes: tuple[int, ...]) -> list[int]:
    """The cheapest groups that hold so many rows, if there are fewer than the largest size."""
    best: list[tuple[int, list[int]]] = [(0, [])]  # for each multiple of ROW_MULTIPLE
    for step in range(1, -(-rows // ROW_MULTIPLE) + 1):
        choices = []
        for size in sizes:
            cost, rest = best[max(0, step - size // ROW_MULTIPLE)]
            choices.append((size + CALL_ROWS + cost, [size, *rest]))
        best.append(min(choices))
    return best[-1][1]
