"""A stage of the codec: input projection, pre-norm transformer layers, output projection, on packed rows.

A packed batch is one matrix (rows, features) that holds the steps of all clips end to end, without padding. All
products, norms and activations are row by row; only attention knows where a clip begins. The residual stream, the
norms and the rotary positions are float32 whatever the precision of the products. Parameter names are those of the v1
release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tok.attention import Span, WindowShape
from moss_tok.config import TransformerConfig
from moss_tok.execution import Execution
from moss_tok.linear import Linear
from moss_tok.numerics import Numerics, RowOperation, Way
from moss_tok.numerics.probe import ordinary
from moss_tok.numerics.rowwise import gelu, one_by_one
from moss_tok.rope import rope_rows, rotate_

NORM_EPSILON = 1e-5

# The cached keys and values of one stage and one batch: for each layer, for each clip, (steps, 2, heads, head_dim).
StageCache = Sequence[Sequence[Tensor]]


class SelfAttentionWeights(nn.Module):
    """The two projections of attention, in the release's lists of one; q and k come out in halves, see rope.py."""

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
        """What this layer does with rows besides products, to be probed."""
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


def rotated_(query_key: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate_`, and what it changed."""
    rotate_(query_key, cos, sin)
    return query_key


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def __iter__(self) -> Iterator[TransformerLayer]:
        return (cast(TransformerLayer, layer) for layer in self.layers)


class Stage(nn.Module):
    """One transformer of the codec. Its projections are absent from a checkpoint where they would be the identity."""

    def __init__(self, config: TransformerConfig, *, input_proj: bool, output_proj: bool) -> None:
        super().__init__()
        self.config = config
        self.input_proj = Linear(config.input_dimension, config.d_model) if input_proj else None
        self.transformer = Transformer(config)
        self.output_proj = Linear(config.d_model, config.output_dimension) if output_proj else None

    def forward(
        self, x: Tensor, spans: Sequence[Span], steps_per_frame: int, execution: Execution, cache: StageCache | None
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """x (rows, input_dimension) float32 -> (rows, output_dimension) float32, and the cache for what follows.

        `spans` tells whose the rows are; `cache` holds the keys and values of their earlier steps, None where
        nothing was before and nothing will follow.
        """
        config, rows, device = self.config, x.shape[0], x.device
        groups = execution.groups(rows, steps_per_frame, self.way)
        project, finish = execution.function(TransformerLayer.project), execution.function(TransformerLayer.finish)
        x = F.pad(x, (0, 0, 0, groups[-1].stop - rows))
        x = _project_rows(x, self.input_proj, groups, execution) if self.input_proj else x.clone()
        cos, sin = self._angles(spans, x.shape[0], device)
        shape = WindowShape(config.context, config.num_heads, config.head_dim)
        attention = execution.attention(spans, shape, self.product_dtype, device)
        mixed = torch.zeros(x.shape, dtype=self.product_dtype, device=device)
        layers, kept = list(self.transformer), []

        def between(group: slice, before: TransformerLayer | None, after: TransformerLayer | None) -> None:
            """Finish a layer and begin the next one: what lies between two attentions."""
            if before is not None:
                finish(before, x[group], mixed[group])
            if after is not None:
                attention.write(group, project(after, x[group], cos[group], sin[group]))

        for index, layer in enumerate([*layers, None]):
            if cache is not None and layer is not None:
                attention.load(cache[index])
            before = layers[index - 1] if index else None
            execution.run([partial(between, group, before, layer) for group in groups], device)
            if layer is not None:
                attention.attend(mixed)
                if cache is not None:
                    kept.append(attention.save())
        y = _project_rows(x, self.output_proj, groups, execution) if self.output_proj else x
        return y[:rows], kept

    def _angles(self, spans: Sequence[Span], rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines of all steps, for so many rows."""
        config = self.config
        parts = [rope_rows(span.past, span.end, config.head_dim, config.max_period, device) for span in spans]
        tables = (torch.cat([part[which] for part in parts]) for which in (0, 1))
        cos, sin = (F.pad(table, (0, 0, 0, 0, 0, 0, 0, rows - table.shape[0])) for table in tables)
        return cos, sin

    @property
    def linears(self) -> list[Linear]:
        return [module for module in self.modules() if isinstance(module, Linear)]

    @property
    def operations(self) -> list[RowOperation]:
        """What its layers do with rows besides products, to be probed."""
        return next(iter(self.transformer)).operations(self.product_dtype)

    def bind(self, numerics: Numerics) -> None:
        """Compute with these kernels; the products have theirs from `Linear.prepare`."""
        for layer in self.transformer:
            layer.one_by_one = numerics.one_by_one

    @property
    def way(self) -> Way:
        """How its products are carried out: all of them alike."""
        product = next(iter(self.transformer)).linear1.product
        assert product is not None, "the model's prepare() comes before the first product"
        return product.way

    @property
    def product_dtype(self) -> torch.dtype:
        """The precision of the matrix products."""
        return next(iter(self.transformer)).linear1.weight.dtype


def _project_rows(x: Tensor, projection: Linear, groups: Sequence[slice], execution: Execution) -> Tensor:
    def project(group: slice) -> Tensor:
        y: Tensor = projection(x[group])
        return y.float()

    return torch.cat(execution.run([partial(project, group) for group in groups], x.device))
