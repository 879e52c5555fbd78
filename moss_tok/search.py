"""The search for the codes of all quantizers at once, given the projections: in one kernel on a GPU.

As products, each quantizer is about ten launches, most of which do too little for a GPU. The kernel (search_kernel.py)
is one launch for all. It takes the place of the products only where a probe finds that it gives, on this device and on
the model's own codebooks, the codes that its arithmetic says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

ROWS = 8  # of one program: 1,024 frames are as many programs as a large GPU has processors
BLOCK = 256  # codes that are scored at once
WARPS = 4
MOST_COLUMNS = 1024  # of a program, in registers: 32 quantizers of 8 dimensions are 256
PROBED_ROWS = 69  # the last program has some rows that are none

CodeSearch = Callable[[Tensor, int], Tensor]
"""(projected (rows, layers * width) float32, count) -> the codes (count, rows) int64 of the first so many layers. On
ties the first index is taken."""


@dataclass(frozen=True)
class SearchConstants:
    """What the quantizer is folded to, float32 on one device: `directions` and `codebooks` (layers, size, width), and
    `corrections` (layers, layers * width, width), see quantizer.py."""

    directions: Tensor
    codebooks: Tensor
    corrections: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, size and width."""
        layers, size, width = self.directions.shape
        return layers, size, width

    def scores(self, layer: int, residual: Tensor) -> Tensor:
        """(rows, width) -> (rows, size). A product and a sum at a time, each rounded, as in the kernel."""
        return _summed(residual, self.directions[layer].T)

    def correction(self, layer: int, codes: Tensor) -> Tensor:
        """What the codes (rows,) of a layer take from the projections (rows, layers * width); so rounded, too."""
        return _summed(self.codebooks[layer][codes], self.corrections[layer].T)


SearchFactory = Callable[[SearchConstants], CodeSearch | None]
"""Makes the search for constants, or None where their device has none that can be trusted."""


def _summed(coordinates: Tensor, weights: Tensor) -> Tensor:
    """coordinates (rows, width) times weights (width, n), summed from the first dimension to the last."""
    total = coordinates.new_zeros(coordinates.shape[0], weights.shape[1])
    for coordinate, weight in zip(coordinates.T, weights, strict=True):
        total = total + coordinate[:, None] * weight
    return total


def search_by_sums(constants: SearchConstants, projected: Tensor, count: int) -> Tensor:
    """A `CodeSearch` that says what the kernel computes, bit for bit, in plain operations of torch."""
    width, left, codes = constants.shape[2], projected, []
    for layer in range(count):
        scores = constants.scores(layer, left[:, layer * width : (layer + 1) * width])
        codes.append(scores.argmax(dim=1))
        left = left - constants.correction(layer, codes[-1])
    return torch.stack(codes)


class OneKernel:
    """A `CodeSearch` in one launch. `launch` stands for the kernel."""

    def __init__(self, constants: SearchConstants, launch: Callable[..., object]) -> None:
        self.constants, self.launch = constants, launch
        self.directions = constants.directions.transpose(1, 2).contiguous()  # neighbours in memory are scored together
        self.corrections = constants.corrections.transpose(1, 2).contiguous()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The constants of the kernel besides the number of layers that are searched. It counts in powers of two."""
        layers, size, width = self.constants.shape
        return {
            "LAYERS": layers, "WIDTH": width, "SIZE": size, "ROWS": ROWS, "BLOCK": min(BLOCK, _power_of_two(size)),
            "PADDED_LAYERS": _power_of_two(layers), "PADDED_WIDTH": _power_of_two(width),
        }  # fmt: skip

    @property
    def fits(self) -> bool:
        """Whether a program has room for its rows."""
        return self.sizes["PADDED_LAYERS"] * self.sizes["PADDED_WIDTH"] <= MOST_COLUMNS

    def __call__(self, projected: Tensor, count: int) -> Tensor:
        rows = projected.shape[0]
        codes = torch.empty(count, rows, dtype=torch.int64, device=projected.device)
        self.launch(
            -(-rows // ROWS), projected.contiguous(), self.directions, self.constants.codebooks, self.corrections,
            codes, rows, COUNT=count, **self.sizes,
        )  # fmt: skip
        return codes


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def launch_kernel(programs: int, projected: Tensor, *arguments: object, **constants: int) -> None:
    """Launch search_kernel.py on the device of what it is given. Needs Triton, and a C compiler for its first launch.

    Unfused sums are part of what the kernel computes.
    """
    from moss_tok.search_kernel import search

    with torch.cuda.device(projected.device):  # torch goes to a tensor's device by itself, Triton does not
        search[(programs,)](projected, *arguments, **constants, num_warps=WARPS, enable_fp_fusion=False)


def one_kernel(constants: SearchConstants, launch: Callable[..., object] = launch_kernel) -> CodeSearch | None:
    """The search in one kernel, or None where it cannot be had on this device, or computes anything else than it says.

    Raises what CUDA says where the kernel has failed in a way that nothing in this process survives.
    """
    search, device = OneKernel(constants, launch), constants.directions.device
    if not search.fits:
        return None
    try:
        layers, projected = constants.shape[0], undecided_rows(constants, PROBED_ROWS)
        if torch.equal(search(projected, layers), search_by_sums(constants, projected, layers)):
            return search
        problem = "its codes are others than those of its sums"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler raises that is not there or too old
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        problem = f"{type(error).__name__}: {error}"
    logger.warning("codes are searched for by products, and not in one kernel: %s", problem)
    return None


def undecided_rows(constants: SearchConstants, rows: int) -> Tensor:
    """Projections (rows, layers * width) for a probe: in each layer, half-way between two neighbours among the codes.

    Their scores are equal but for the rounding of the sums. So sums in another order choose the other code for many
    rows, where ordinary rows would hardly show it.
    """
    layers, size, width = constants.shape
    draw = torch.Generator().manual_seed(0)
    projected = torch.zeros(rows, layers * width, device=constants.directions.device)
    taken = torch.zeros_like(projected)
    for layer in range(layers):
        one = torch.randint(size, (rows,), generator=draw).to(projected.device)
        directions = constants.directions[layer]
        others = (directions[one] @ directions.T).scatter_(1, one[:, None], -torch.inf)
        between = directions[one] + directions[others.argmax(dim=1)]
        own = slice(layer * width, (layer + 1) * width)
        projected[:, own] = between + taken[:, own]
        chosen = constants.scores(layer, projected[:, own] - taken[:, own]).argmax(dim=1)
        taken += constants.correction(layer, chosen)
    return projected
