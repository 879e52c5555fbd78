"""A stage of the codec: input projection, transformer layers, output projection, on packed rows.

A packed batch is one matrix (rows, features) that holds the steps of all clips end to end, without padding. All
products, norms and activations are row by row. Only attention knows where a clip begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tok.attention import Span, WindowShape
from moss_tok.config import TransformerConfig
from moss_tok.execution import Execution
from moss_tok.linear import Linear
from moss_tok.numerics import Numerics, RowOperation, Way
from moss_tok.rope import rope_rows, rope_table
from moss_tok.transfer import to_device
from moss_tok.transformer import TransformerLayer

# The cached keys and values of one stage and one batch: for each layer, for each clip, (steps, 2, heads, head_dim).
StageCache = Sequence[Sequence[Tensor]]


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def __iter__(self) -> Iterator[TransformerLayer]:
        return (cast(TransformerLayer, layer) for layer in self.layers)


class Stage(nn.Module):
    """One transformer of the codec. A projection that would be the identity is absent from a checkpoint."""

    def __init__(self, config: TransformerConfig, *, input_proj: bool, output_proj: bool) -> None:
        super().__init__()
        self.config = config
        self.input_proj = Linear(config.input_dimension, config.d_model) if input_proj else None
        self.transformer = Transformer(config)
        self.output_proj = Linear(config.d_model, config.output_dimension) if output_proj else None

    def forward(
        self, x: Tensor, spans: Sequence[Span], steps_per_frame: int, execution: Execution, cache: StageCache | None
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """x (rows, input_dimension) float32 -> (rows, output_dimension) float32, and the new cache.

        `spans` tells which rows belong to which clip. `cache` holds the keys and values of the earlier steps, or None
        if there are no earlier steps and none will follow.
        """
        rows = x.shape[0]
        groups = execution.groups(rows, steps_per_frame, self.way)
        x = F.pad(x, (0, 0, 0, groups[-1].stop - rows))
        x = _project_rows(x, self.input_proj, groups, execution) if self.input_proj else x.clone()
        batch = _Batch(self, x, spans, groups, execution)
        kept = [
            batch.attend(layer, None if cache is None else cache[index]) for index, layer in enumerate(self.transformer)
        ]
        batch.finish()
        y = _project_rows(x, self.output_proj, groups, execution) if self.output_proj else x
        return y[:rows], kept

    @property
    def linears(self) -> list[Linear]:
        return [module for module in self.modules() if isinstance(module, Linear)]

    @property
    def operations(self) -> list[RowOperation]:
        """The operations of its layers on rows besides products, to be probed."""
        return next(iter(self.transformer)).operations(self.product_dtype)

    def bind(self, numerics: Numerics) -> None:
        """Compute with these kernels. Those of the products are set by `Linear.prepare`."""
        for layer in self.transformer:
            layer.one_by_one = numerics.one_by_one

    @property
    def way(self) -> Way:
        """How its products are carried out. It is the same for all of them."""
        product = next(iter(self.transformer)).linear1.product
        assert product is not None, "the model's prepare() comes before the first product"
        return product.way

    @property
    def product_dtype(self) -> torch.dtype:
        """The precision of the matrix products."""
        return next(iter(self.transformer)).linear1.weight.dtype


class _Batch:
    """One batch on its way through the layers of a stage.

    Between two attentions all work is row by row. So the end of one layer and the beginning of the next are computed
    together, for one group of rows after the other.
    """

    def __init__(
        self, stage: Stage, x: Tensor, spans: Sequence[Span], groups: Sequence[slice], execution: Execution
    ) -> None:
        """`x` (rows, d_model) is changed in place, layer by layer."""
        config, dtype = stage.config, stage.product_dtype
        self._x, self._groups, self._execution = x, groups, execution
        self._project = execution.function(TransformerLayer.project)
        self._finish = execution.function(TransformerLayer.finish)
        self._cos, self._sin = _angles(config, spans, x.shape[0], x.device)
        shape = WindowShape(config.context, config.num_heads, config.head_dim)
        self._attention = execution.attention(spans, shape, dtype, x.device)
        self._mixed = torch.zeros(x.shape, dtype=dtype, device=x.device)
        self._begun: TransformerLayer | None = None
        """The layer whose attention is computed, and which is not finished."""

    def attend(self, layer: TransformerLayer, cached: Sequence[Tensor] | None) -> list[Tensor]:
        """Compute a layer up to its attention. Returns its new cache, which is empty without `cached`."""
        if cached is not None:
            self._attention.load(cached)
        self._rows_between(self._begun, layer)
        self._attention.attend(self._mixed)
        self._begun = layer
        return [] if cached is None else self._attention.save()

    def finish(self) -> None:
        """Finish the last layer."""
        self._rows_between(self._begun, None)

    def _rows_between(self, before: TransformerLayer | None, after: TransformerLayer | None) -> None:
        """Finish one layer and project for the attention of the next."""

        def compute(group: slice) -> None:
            if before is not None:
                self._finish(before, self._x[group], self._mixed[group])
            if after is not None:
                qkv = self._project(after, self._x[group], self._cos[group], self._sin[group])
                self._attention.write(group, qkv)

        self._execution.run([partial(compute, group) for group in self._groups], self._x.device)


def _angles(config: TransformerConfig, spans: Sequence[Span], rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions of all steps, padded to so many rows."""
    if device.type != "cpu":
        # A few launches for all clips. Elsewhere a row's bits would depend on its place among the others.
        return rope_table(to_device(positions_of(spans, rows), device), config.head_dim, config.max_period)
    parts = [rope_rows(span.past, span.end, config.head_dim, config.max_period, device) for span in spans]
    tables = (torch.cat([part[which] for part in parts]) for which in (0, 1))
    cos, sin = (F.pad(table, (0, 0, 0, 0, 0, 0, 0, rows - table.shape[0])) for table in tables)
    return cos, sin


def positions_of(spans: Sequence[Span], rows: int) -> Tensor:
    """The positions (rows,) float32 of all steps in their clips, then zeros."""
    past, length = np.array([(span.past, span.length) for span in spans]).T
    positions = np.zeros(rows, np.float32)
    positions[: length.sum()] = np.arange(length.sum()) + np.repeat(past - np.cumsum(length) + length, length)
    return torch.from_numpy(positions)


def _project_rows(x: Tensor, projection: Linear, groups: Sequence[slice], execution: Execution) -> Tensor:
    def project(group: slice) -> Tensor:
        y: Tensor = projection(x[group])
        return y.float()

    return torch.cat(execution.run([partial(project, group) for group in groups], x.device))
