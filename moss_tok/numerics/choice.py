"""The choice of the kernels of a model, made when it is loaded or moved, by probing them in order.

The lists below are in order of speed. Whether a way is constant depends on torch's libraries and on the kind of CPU,
and what holds on one kind says nothing about another. So no way is taken that was not probed in this process, on the
shapes of this model. In the last way of each list a row cannot depend on another.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from moss_tok.lanes import run_in_lanes
from moss_tok.numerics.probe import RowOperation, first_constant, probe
from moss_tok.numerics.ways import Kernel, Way

logger = logging.getLogger(__name__)

DOUBLING = (16, 32, 64, 128, 256)
DOUBLING_BLAS = (512,)  # MKL on AVX2 gains 4 to 6 % from it, oneDNN nothing
DOUBLING_SMALL = (512, 1024)  # beside the others where a weight has so few elements that a call costs more than a row
THIRDS = (16, 48, 96, 192)  # oneDNN works off 48 rows at once on AVX2: the rest of other numbers gets another kernel
THIRDS_SMALL = (384, 768)
LARGE = (64, 96, 192)  # MKL has another kernel for fewer rows on AVX2; with AMX, other numbers split the sum otherwise
SMALL_WEIGHT = 2**18

Shape = tuple[int, int]


@dataclass(frozen=True)
class Numerics:
    """The kernels of a model.

    `products` are those of its transformers, `quantizer` those of its quantizer. The operations in `one_by_one` are
    computed one row at a time, because several rows at once were not constant. `one_search` says that all codes are
    searched for in one kernel (search.py).
    """

    products: Way
    quantizer: Way
    one_by_one: tuple[str, ...] = ()
    one_search: bool = False

    @property
    def name(self) -> str:
        """A description, such as "oneDNN float32 in 16/32/64/128/256 rows; quantizer BLAS float32 in 16/32/64/128/256
        rows"."""
        alone = f"; one row at a time: {', '.join(self.one_by_one)}" if self.one_by_one else ""
        search = ", codes in one kernel" if self.one_search else ""
        return f"{self.products}; quantizer {self.quantizer}{search}{alone}"

    def __str__(self) -> str:
        return self.name


def unprobed(dtype: torch.dtype) -> Numerics:
    """The products on a GPU: there each has the same number of rows (execution.py), and so the same kernel."""
    return Numerics(Way(Kernel.BLAS, (), dtype), Way(Kernel.BLAS, (), torch.float32))


@dataclass(frozen=True)
class Work:
    """The work of a part of a model: products with weights of `shapes` (inputs, outputs), and other operations."""

    shapes: Sequence[Shape]
    operations: Sequence[RowOperation] = ()


def choose(transformers: Work, quantizer: Work, dtype: torch.dtype) -> Numerics:
    """Choose on a CPU, for a model whose transformers multiply in `dtype`. Its quantizer always multiplies in
    float32."""
    products, codes = run_in_lanes(
        [
            lambda: first_constant(ways(dtype, transformers.shapes), transformers.shapes),
            lambda: first_constant(ways(torch.float32, quantizer.shapes, first=Kernel.BLAS), quantizer.shapes),
        ]
    )
    pairs = [(operation, products) for operation in transformers.operations]
    pairs += [(operation, codes) for operation in quantizer.operations]
    found = run_in_lanes([partial(probe.operation, operation, way.sizes or (16,)) for operation, way in pairs])
    alone = {operation.name for (operation, _), constant in zip(pairs, found, strict=True) if not constant}
    numerics = Numerics(products, codes, tuple(sorted(alone)))
    logger.info("computing with %s", numerics)
    return numerics


def ways(dtype: torch.dtype, shapes: Sequence[Shape], first: Kernel = Kernel.ONEDNN) -> list[Way]:
    """The ways to multiply in `dtype`, the best one first. `first` is the better kernel for float32."""
    small = max((inputs * outputs for inputs, outputs in shapes), default=0) <= SMALL_WEIGHT
    doubling = DOUBLING + DOUBLING_SMALL if small else DOUBLING
    thirds, large = (THIRDS + THIRDS_SMALL, LARGE + THIRDS_SMALL) if small else (THIRDS, LARGE)
    plain = {Kernel.ONEDNN: doubling, Kernel.BLAS: doubling if small else DOUBLING + DOUBLING_BLAS}
    second = Kernel.BLAS if first is Kernel.ONEDNN else Kernel.ONEDNN
    exact = [
        (first, plain[first]),
        (second, plain[second]),
        (Kernel.BLAS, large),
        (Kernel.ONEDNN, thirds),
        (Kernel.ONEDNN, (48,)),
        (Kernel.BLAS, (64,)),
        (Kernel.BLAS, (16,)),
        (Kernel.ROW, ()),
    ]
    float32 = [Way(kernel, sizes, torch.float32) for kernel, sizes in exact]
    if dtype == torch.float32:
        return float32
    # Where the CPU has no instructions for bfloat16, products in float32 are five times as fast, and nearer the truth.
    rounded = [(Kernel.BLAS, doubling), (Kernel.BLAS, large), (Kernel.ONEDNN, doubling), (Kernel.ONEDNN, thirds)]
    return [*(Way(kernel, sizes, dtype) for kernel, sizes in rounded if has_bfloat16()), *float32]


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported
