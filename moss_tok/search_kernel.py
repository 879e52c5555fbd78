"""The search for the codes of all quantizers, one kernel of Triton: on a GPU it takes the place of ten launches for
each quantizer.

A program takes a few rows through all quantizers, with what is left of their projections in registers. Its arithmetic
is spelled out: a product and a sum at a time, each rounded, from the first dimension to the last, and no two fused. So
a code follows from its row and the constants by IEEE 754 alone, whatever the GPU, the compiler's layout or the other
rows, and Triton's interpreter on a CPU computes the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def search(
    projected,
    directions,
    codebooks,
    corrections,
    codes,
    rows,
    COUNT: tl.constexpr,
    LAYERS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_LAYERS: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """projected (rows, LAYERS * WIDTH) -> codes (COUNT, rows) int64. Of the constants, `directions` is (layers, width,
    size) and `corrections` (layers, width, layers * width): `OneKernel` turns them."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_batch = row < rows
    column = tl.arange(0, PADDED_LAYERS * PADDED_WIDTH)
    layer, dimension = column // PADDED_WIDTH, column % PADDED_WIDTH
    real = (layer < LAYERS) & (dimension < WIDTH)
    place = layer * WIDTH + dimension
    left = tl.load(
        projected + row[:, None] * (LAYERS * WIDTH) + place[None, :], in_batch[:, None] & real[None, :], other=0.0
    )
    code = tl.arange(0, BLOCK)
    for index in range(COUNT):
        best = tl.full((ROWS, BLOCK), float("-inf"), tl.float32)
        chosen = tl.zeros((ROWS, BLOCK), tl.int32) + code[None, :]
        for start in range(0, SIZE, BLOCK):
            scores = tl.zeros((ROWS, BLOCK), tl.float32)
            in_codebook = start + code < SIZE
            for k in tl.static_range(WIDTH):
                coordinate = tl.sum(tl.where((column == index * PADDED_WIDTH + k)[None, :], left, 0.0), axis=1)
                direction = tl.load(directions + (index * WIDTH + k) * SIZE + start + code, in_codebook, other=0.0)
                scores += coordinate[:, None] * direction[None, :]
            better = (scores > best) & in_codebook[None, :]  # of equals, the first stays
            best = tl.where(better, scores, best)
            chosen = tl.where(better, start + code[None, :], chosen)
        most = tl.max(best, axis=1)
        first = tl.min(tl.where(best == most[:, None], chosen, SIZE), axis=1)
        tl.store(codes + index * rows + row, first.to(tl.int64), in_batch)
        correction = tl.zeros((ROWS, PADDED_LAYERS * PADDED_WIDTH), tl.float32)
        for k in tl.static_range(WIDTH):
            coordinate = tl.load(codebooks + (index * SIZE + first) * WIDTH + k)
            weight = tl.load(corrections + (index * WIDTH + k) * (LAYERS * WIDTH) + place, real, other=0.0)
            correction += coordinate[:, None] * weight[None, :]
        left -= correction
