"""A pre-norm transformer layer on packed rows, cut where attention mixes the rows.

The residual stream, the norms and the rotary positions are float32 whatever the precision of the products. Parameter
names are those of the v1 release.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from moss_tok.config import TransformerConfig
from moss_tok.linear import Linear
from moss_tok.numerics import RowOperation
from moss_tok.numerics.probe import ordinary
from moss_tok.numerics.rowwise import gelu, one_by_one
from moss_tok.rope import rotate_

NORM_EPSILON = 1e-5


class SelfAttentionWeights(nn.Module):
    """The two projections of attention, each in a list of one as in the release. q and k are in halves, see rope.py."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.in_projs = nn.ModuleList([Linear(d_model, 3 * d_model)])
        self.out_projs = nn.ModuleList([Linear(d_model, d_model)])

    @property
    def in_proj(self) -> Linear:
        return cast(Linear, self.in_projs[0])

    @property
    def out_proj(self) -> Linear:
        return cast(Linear, self.out_projs[0])


class LayerScale(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(d_model), requires_grad=False)


class TransformerLayer(nn.Module):
    """x += scale1 * attention(norm1(x)); x += scale2 * ffn(norm2(x)), cut where attention mixes rows."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.heads = (3, config.num_heads, config.head_dim)
        self.one_by_one: tuple[str, ...] = ()
        """The operations whose rows are computed one at a time, see `Numerics`."""
        self.norm1 = nn.LayerNorm(d_model, eps=NORM_EPSILON)
        self.self_attn = SelfAttentionWeights(d_model)
        self.layer_scale_1 = LayerScale(d_model)
        self.norm2 = nn.LayerNorm(d_model, eps=NORM_EPSILON)
        self.linear1 = Linear(d_model, config.dim_feedforward)
        self.linear2 = Linear(config.dim_feedforward, d_model)
        self.layer_scale_2 = LayerScale(d_model)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (rows, d) -> rotated q, k, v (rows, 3, heads, head_dim) in the precision of the products."""
        qkv: Tensor = self.self_attn.in_proj(self._rows("norm", self.norm1, x)).view(x.shape[0], *self.heads)
        if qkv.device.type != "cpu":
            return rotated_qkv(qkv, cos, sin)  # out of place: the compiler makes one kernel of it
        if qkv.dtype == torch.float32 and "rotation" not in self.one_by_one:
            rotate_(qkv[:, :2], cos, sin)
            return qkv
        qkv[:, :2] = self._rows("rotation", rotated_, qkv[:, :2].float(), cos, sin)
        return qkv

    def finish(self, x: Tensor, mixed: Tensor) -> None:
        """Add the attention output `mixed` (rows, d) and the feed-forward to x (rows, d), in place."""
        self._add(x, self.self_attn.out_proj(mixed), self.layer_scale_1)
        hidden = self._rows("activation", gelu, self.linear1(self._rows("norm", self.norm2, x)))
        self._add(x, self.linear2(hidden), self.layer_scale_2)

    def operations(self, dtype: torch.dtype) -> list[RowOperation]:
        """The operations of this layer on rows besides products, to be probed."""
        _, heads, width = self.heads
        d_model, features = heads * width, self.linear1.shape[1]
        scale = self.layer_scale_1.scale

        def rotation(rows: Tensor) -> Tensor:
            qkv = rows[:, : 3 * d_model].contiguous().view(-1, *self.heads)
            cos, sin = (part[:, None, None].contiguous() for part in rows[:, 3 * d_model :].chunk(2, dim=1))
            rotate_(qkv[:, :2], cos, sin)
            return qkv.view(len(rows), -1)

        def addition(rows: Tensor) -> Tensor:
            return added_(rows[:, :d_model].contiguous(), rows[:, d_model:].contiguous(), scale)

        float32 = torch.float32
        return [
            RowOperation("norm", self.norm1, ordinary(d_model, float32)),
            RowOperation("activation", gelu, ordinary(features, dtype)),
            RowOperation("rotation", rotation, ordinary(3 * d_model + width, float32)),
            RowOperation("addition", addition, ordinary(2 * d_model, float32)),
        ]

    def _add(self, x: Tensor, y: Tensor, scale: LayerScale) -> None:
        if "addition" in self.one_by_one:
            x.copy_(one_by_one(partial(added_, scale=scale.scale), x, y))
        else:
            added_(x, y, scale.scale)

    def _rows(self, name: str, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        return one_by_one(function, *rows) if name in self.one_by_one else function(*rows)


def added_(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """x (rows, d) float32 plus y (rows, d) times scale (d,), in place."""
    return x.addcmul_(y.float(), scale)


def rotated_qkv(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """q, k and v (rows, 3, heads, head_dim) with q and k rotated in float32. What is given is not changed."""
    first, second = qkv[:, :2].float().chunk(2, dim=-1)
    # With plain products: the compiler makes two kernels of sums that are fused by hand.
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(qkv.dtype), qkv[:, 2:]], dim=1)


def rotated_(query_key: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate in place, and return the rotated `query_key`."""
    rotate_(query_key, cos, sin)
    return query_key
