"""A stage of the codec: input projection, pre-norm transformer layers, output projection, on packed rows.

A packed batch is one matrix (rows, features) that holds the steps of all clips end to end, without padding. All
products, norms and activations are row by row; only attention knows where a clip begins. The residual stream, the
norms and the rotary positions are float32 whatever the precision of the products. Parameter names are those of the v1
release.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tok.attention import Span, WindowShape
from moss_tok.config import TransformerConfig
from moss_tok.execution import Execution
from moss_tok.linear import Linear
from moss_tok.rope import rope_table, rotate_
from moss_tok.transfer import to_device

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
        self.norm1 = nn.LayerNorm(d_model, eps=NORM_EPSILON)
        self.self_attn = SelfAttentionWeights(d_model)
        self.layer_scale_1 = LayerScale(d_model)
        self.norm2 = nn.LayerNorm(d_model, eps=NORM_EPSILON)
        self.linear1 = Linear(d_model, config.dim_feedforward)
        self.linear2 = Linear(config.dim_feedforward, d_model)
        self.layer_scale_2 = LayerScale(d_model)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (rows, d) -> rotated q, k, v (rows, 3, heads, head_dim) in the precision of the products."""
        qkv: Tensor = self.self_attn.in_proj(self.norm1(x)).view(x.shape[0], *self.heads)
        if qkv.dtype == torch.float32:
            rotate_(qkv[:, :2], cos, sin)
            return qkv
        exact = qkv[:, :2].float()
        rotate_(exact, cos, sin)
        qkv[:, :2] = exact
        return qkv

    def finish(self, x: Tensor, mixed: Tensor) -> None:
        """Add the attention output `mixed` (rows, d) and the feed-forward to x (rows, d), in place."""
        x.addcmul_(self.self_attn.out_proj(mixed).float(), self.layer_scale_1.scale)
        hidden = F.gelu(self.linear1(self.norm2(x)))
        x.addcmul_(self.linear2(hidden).float(), self.layer_scale_2.scale)


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
        config, rows = self.config, x.shape[0]
        budget = execution.budget(steps_per_frame)
        project, finish = execution.function(TransformerLayer.project), execution.function(TransformerLayer.finish)
        x = F.pad(x, (0, 0, 0, budget.padded(rows) - rows))
        chunks = list(budget.chunks(x.shape[0]))
        x = _project_rows(x, self.input_proj, chunks) if self.input_proj else x.clone()
        positions = to_device(torch.cat([torch.arange(span.past, span.end) for span in spans]), x.device)
        cos, sin = rope_table(F.pad(positions, (0, x.shape[0] - rows)), config.head_dim, config.max_period)
        shape = WindowShape(config.context, config.num_heads, config.head_dim)
        attention = execution.attention(spans, shape, self.product_dtype, x.device)
        mixed = torch.zeros(x.shape, dtype=self.product_dtype, device=x.device)
        kept = []
        for index, layer in enumerate(self.transformer):
            if cache is not None:
                attention.load(cache[index])
            for chunk in chunks:
                attention.write(chunk, project(layer, x[chunk], cos[chunk], sin[chunk]))
            attention.attend(mixed)
            for chunk in chunks:
                finish(layer, x[chunk], mixed[chunk])
            if cache is not None:
                kept.append(attention.save())
        y = _project_rows(x, self.output_proj, chunks) if self.output_proj else x
        return y[:rows], kept

    @property
    def product_dtype(self) -> torch.dtype:
        """The precision of the matrix products."""
        return next(iter(self.transformer)).linear1.weight.dtype


def _project_rows(x: Tensor, projection: Linear, chunks: Sequence[slice]) -> Tensor:
    return torch.cat([projection(x[chunk]).float() for chunk in chunks])
