"""Rotary positions.

The release rotates the *interleaved* pairs (2i, 2i+1) of each head by position * max_period^(-2i / head_dim).
A score q.k does not change when q and k are permuted alike, so the rows of the in-projection that make q and k are
permuted once, at load, to put the first members of all pairs before the second ones. The rotation then works on
contiguous halves with plain products and sums, whose bits do not depend on how a tensor is split over threads.
(Complex multiplication is faster still, but its vector and scalar paths in torch round differently.)
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from moss_tok.lanes import run_in_lanes
from moss_tok.transfer import to_device

BLOCK = 1024  # positions of one table, aligned: a row's bits follow from its position alone


def split_pairs(in_proj: Tensor, num_heads: int) -> Tensor:
    """Permute the q and k rows of an in-projection (3 * d, d) from interleaved pairs to halves."""
    return _permute_heads(in_proj, (2 * num_heads, -1, 2))


def join_pairs(in_proj: Tensor, num_heads: int) -> Tensor:
    """The exact inverse of `split_pairs`."""
    return _permute_heads(in_proj, (2 * num_heads, 2, -1))


def _permute_heads(in_proj: Tensor, shape: tuple[int, int, int]) -> Tensor:
    d_model = in_proj.shape[1]
    query_key = in_proj[: 2 * d_model].view(*shape, d_model).transpose(1, 2).reshape(2 * d_model, d_model)
    return torch.cat([query_key, in_proj[2 * d_model :]])


def rope_table(positions: Tensor, head_dim: int, max_period: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (rows, 1, 1, head_dim / 2) float32, for the steps at `positions` (rows,)."""
    frequencies = _frequencies(head_dim, max_period, positions.device)
    angles = positions.to(torch.float32)[:, None, None, None] * frequencies
    return angles.cos(), angles.sin()


@lru_cache(maxsize=64)
def _frequencies(head_dim: int, max_period: float, device: torch.device) -> Tensor:
    # As the release computes them, in float32 and as an exponential; on the CPU, so that all devices agree.
    with torch.inference_mode(False):
        exponents = torch.arange(head_dim // 2, dtype=torch.float32) * (-2 * math.log(max_period) / head_dim)
        return to_device(torch.exp(exponents), device)


def rope_rows(start: int, stop: int, head_dim: int, max_period: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """`rope_table` of the positions [start, stop), made from cached tables of aligned blocks."""
    parts: list[tuple[Tensor, Tensor]] = []
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        first = block * BLOCK
        rows = slice(max(start, first) - first, min(stop, first + BLOCK) - first)
        cos, sin = _block(block, head_dim, max_period, device)
        parts.append((cos[rows], sin[rows]))
    return torch.cat([cos for cos, _ in parts]), torch.cat([sin for _, sin in parts])


@lru_cache(maxsize=256)  # 256 KB each for heads of 64
def _block(block: int, head_dim: int, max_period: float, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        positions = torch.arange(block * BLOCK, (block + 1) * BLOCK, device=device)
        return run_in_lanes([lambda: rope_table(positions, head_dim, max_period)])[0]


def rotate_(query_key: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate `query_key` (rows, 2, heads, head_dim) float32, in halves, in place."""
    half = query_key.shape[-1] // 2
    first, second = query_key[..., :half], query_key[..., half:]
    rotated = (first * cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).addcmul_(first, sin)
    first.copy_(rotated)
