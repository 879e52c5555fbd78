"""Causal attention over a sliding window, for many clips in one packed matrix, behind one small interface.

A query at position p attends to the keys p - context < k <= p of its own clip. For each layer, a stage uses a
`WindowAttention` in this order: `load` the cached keys and values of the streams, `write` the new ones, `attend`,
`save`.

`TiledAttention` runs everywhere. It cuts each clip, counted from its first step, into tiles of queries. The keys of
tile j are the steps [j * tile - context, (j + 1) * tile) under one band mask; tiles near a clip's start have fewer; the
last tile is padded to full size. So a tile has the same shape, the same mask and the same key positions whatever the
batch, the clip's length, or the chunks that a stream was cut into, and its results are the same, bit for bit.

`VarlenAttention` uses the packed CUDA kernel. There the unit is a block of `context` queries with the keys of its own
and the previous block, passed as a sequence of its own, for the same reason. Neither ever makes a T x T matrix. Shapes:
H heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import current_flash_attention_impl

from moss_tok.lanes import run_in_lanes
from moss_tok.transfer import to_device

# The rows of a buffer whose address every step of a clip has in common with the same step elsewhere: whole cache lines
# for every width of a head, so that no kernel meets a step at another alignment.
ALIGNED_ROWS = 16
TASKS_PER_LANE = 4


@dataclass(frozen=True)
class Span:
    """The steps of one clip in a packed matrix: `length` new ones, which follow `past` steps of earlier calls."""

    past: int
    length: int

    @property
    def end(self) -> int:
        return self.past + self.length


@dataclass(frozen=True)
class WindowShape:
    """The parameters of a stage's attention: each query sees `context` keys, in `num_heads` heads of `head_dim`."""

    context: int
    num_heads: int
    head_dim: int


class WindowAttention(Protocol):
    """The attention of one stage over a packed batch. Rows are the new steps of all clips, in order."""

    def load(self, cached: Sequence[Tensor]) -> None:
        """Take one layer's cached keys and values, (steps, 2, H, D) for each clip."""

    def write(self, rows: slice, qkv: Tensor) -> None:
        """Store the rotated q, k and v (n, 3, H, D) of these rows. Rows after the last clip are ignored."""

    def attend(self, out: Tensor) -> None:
        """Write the attention output of all rows into `out` (at least rows, H * D)."""

    def save(self) -> list[Tensor]:
        """The keys and values that the next call needs, (steps, 2, H, D) for each clip."""


class _Regions:
    """Where the steps of each clip are in a buffer (rows, 3, H, D), which also holds its cached steps and some padding.

    The region of a clip starts with step `origin(past)`, the first one that any of its new queries may need.
    """

    def __init__(self, spans: Sequence[Span], shape: WindowShape, tile: int, dtype: torch.dtype,
                 device: torch.device) -> None:  # fmt: skip
        self.spans, self.tile, self.context = spans, tile, shape.context
        self.origins = [self.origin(span.past) for span in spans]
        self.bases: list[int] = []
        total, gaps = 0, []
        for span, origin in zip(spans, self.origins, strict=True):
            gaps.append(slice(total, total + (origin - total) % ALIGNED_ROWS))
            self.bases.append(gaps[-1].stop)
            total = gaps[-1].stop + -(-span.end // tile) * tile - origin
        self.buffer = torch.empty(total, 3, shape.num_heads, shape.head_dim, dtype=dtype, device=device)
        for clip, (span, end) in enumerate(zip(spans, [*(gap.start for gap in gaps[1:]), total], strict=True)):
            # What is never written must be finite all the same: a masked key counts 0 times its value.
            self.buffer[self.bases[clip] : self.row(clip, span.past), 0] = 0
            self.buffer[self.row(clip, span.end) : end] = 0

    def origin(self, past: int) -> int:
        """The first step that queries from step `past` on may need, when they are grouped by tiles."""
        return max(0, past // self.tile * self.tile - self.context)

    def row(self, clip: int, step: int) -> int:
        """The buffer row of a clip's step."""
        return self.bases[clip] + step - self.origins[clip]

    def load(self, cached: Sequence[Tensor]) -> None:
        for clip, (span, steps) in enumerate(zip(self.spans, cached, strict=True)):
            start = self.row(clip, self.origins[clip])
            self.buffer[start : self.row(clip, span.past), 1:] = steps

    def write(self, rows: slice, qkv: Tensor) -> None:
        first = 0
        for clip, span in enumerate(self.spans):
            begin, end = max(rows.start, first), min(rows.stop, first + span.length)
            if begin < end:
                place = self.row(clip, span.past + begin - first)
                self.buffer[place : place + end - begin] = qkv[begin - rows.start : end - rows.start]
            first += span.length

    def save(self) -> list[Tensor]:
        return [
            self.buffer[self.row(clip, self.origin(span.end)) : self.row(clip, span.end), 1:].clone()
            for clip, span in enumerate(self.spans)
        ]


class TiledAttention:
    """Attention by aligned tiles of queries through `scaled_dot_product_attention`, as described at the head of this
    file.

    On a CPU each tile is a call of its own on one thread. So nothing that a kernel's choice may depend on differs
    between batches: not the number of tiles, not the number of threads, not the alignment. On a GPU, tiles of the same
    shape go into one call.
    """

    def __init__(self, spans: Sequence[Span], shape: WindowShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        # Small tiles waste fewer keys, large ones make better products; 64 measured best for windows of 500 and up.
        self.together = device.type != "cpu"
        self.tile = 32 if shape.context < 256 and shape.num_heads > 1 else 64
        self.regions = _Regions(spans, shape, self.tile, dtype, device)
        self.load, self.write, self.save = self.regions.load, self.regions.write, self.regions.save

    def attend(self, out: Tensor) -> None:
        runs: list[tuple[int, int, int, int]] = []
        row = 0
        for clip, span in enumerate(self.regions.spans):
            tile = span.past // self.tile
            while tile * self.tile < span.end:
                tiles = self._same_shape(tile, span.end) if self.together else 1
                runs.append((clip, tile, tiles, row - span.past))
                tile += tiles
            row += span.length

        def attend_runs(start: int, stop: int) -> None:
            for clip, tile, tiles, shift in runs[start:stop]:
                span, first = self.regions.spans[clip], tile * self.tile
                result = self._attend_tiles(clip, tile, tiles)
                begin, end = max(first, span.past), min(first + tiles * self.tile, span.end)
                out[begin + shift : end + shift] = result[begin - first : end - first]

        if self.together:
            attend_runs(0, len(runs))
            return
        share = max(1, -(-len(runs) // (TASKS_PER_LANE * torch.get_num_threads())))
        run_in_lanes([partial(attend_runs, start, start + share) for start in range(0, len(runs), share)])

    def _same_shape(self, tile: int, end: int) -> int:
        """How many tiles from this one on have the same shape. It is one where the start of the clip cuts the window
        off."""
        if tile * self.tile < self.shape.context:
            return 1
        return -(-end // self.tile) - tile

    def _attend_tiles(self, clip: int, tile: int, tiles: int) -> Tensor:
        """The outputs (tiles * tile, H * D) of consecutive tiles of one clip that have the same shape."""
        heads, width = self.shape.num_heads, self.shape.head_dim
        first = tile * self.tile
        first_key = max(0, first - self.shape.context)
        num_keys = first + self.tile - first_key
        buffer = self.regions.buffer
        step, _, head, one = buffer.stride()

        def windows(part: int, start: int, length: int) -> Tensor:
            """Overlapping views (tiles, H, length, D). Nothing is copied."""
            offset = buffer[self.regions.row(clip, start), part].storage_offset()
            return buffer.as_strided((tiles, heads, length, width), (self.tile * step, head, step, one), offset)

        mask = band_mask(self.tile, num_keys, self.shape.context, buffer.dtype, buffer.device)
        result = F.scaled_dot_product_attention(
            windows(0, first, self.tile),
            windows(1, first_key, num_keys),
            windows(2, first_key, num_keys),
            attn_mask=mask,
        )
        return result.transpose(1, 2).reshape(tiles * self.tile, heads * width)


@lru_cache(maxsize=256)
def band_mask(queries: int, keys: int, context: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask (queries, keys) whose last query is at the last key: 0 inside the window, -inf outside."""
    with torch.inference_mode(False):
        key = torch.arange(keys, device=device)
        query = torch.arange(keys - queries, keys, device=device)[:, None]
        seen = (key <= query) & (key > query - context)
        return torch.zeros(queries, keys, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))


VarlenKernel = Callable[..., Tensor]
"""(q, k, v, query_starts, key_starts, key_lengths, max_queries, max_keys, window) -> (rows, H, D). Query rows of
sequence i are [query_starts[i], query_starts[i + 1]), its keys the `key_lengths[i]` rows from `key_starts[i]` on. A
query sees its own key, which is aligned at the end of the sequence, and `window` keys before it."""


class VarlenAttention:
    """Attention by blocks of `context` queries through a packed kernel.

    The rows of the batch, as projected, are the kernel's input: nothing is gathered, and nothing padded. The keys of a
    block begin with the block before, so the ranges of keys overlap.
    """

    def __init__(self, spans: Sequence[Span], shape: WindowShape, dtype: torch.dtype, device: torch.device,
                 kernel: VarlenKernel) -> None:  # fmt: skip
        self.spans, self.shape, self.kernel = spans, shape, kernel
        context = shape.context
        past, length = np.array([(span.past, span.length) for span in spans]).T
        end = past + length
        origin = np.maximum(0, past // context - 1) * context
        self.total = int(length.sum())
        self.qkv = torch.empty(self.total, 3, shape.num_heads, shape.head_dim, dtype=dtype, device=device)
        self.key_value = self.qkv[:, 1:]
        self.cached: Sequence[Tensor] | None = None
        # One entry for each block of each clip. A key range begins with the block before.
        blocks = -(-end // context) - past // context
        clip = np.repeat(np.arange(len(spans)), blocks)
        block = np.arange(blocks.sum()) + (past // context - _starts(blocks))[clip]
        stop = np.minimum((block + 1) * context, end[clip])
        first_key = np.maximum(0, (block - 1) * context)
        queries = np.concatenate([[0], (_starts(length) - past)[clip] + stop])
        keys = np.append((_starts(end - origin) - origin)[clip] + first_key, (end - origin).sum())
        index = np.concatenate([queries, keys, stop - first_key]).astype(np.int32)
        on_device = to_device(torch.from_numpy(index), device)  # one copy for all
        self.query_starts, self.key_starts, self.key_lengths = torch.split(
            on_device, [len(queries), len(keys), len(stop)]
        )

    def load(self, cached: Sequence[Tensor]) -> None:
        self.cached = cached

    def write(self, rows: slice, qkv: Tensor) -> None:
        if rows.start == 0 and rows.stop >= self.total:
            self.qkv = qkv[: self.total]  # the batch is one group: nothing is copied
            return
        place = self.qkv[rows]
        place.copy_(qkv[: place.shape[0]])

    def attend(self, out: Tensor) -> None:
        context = self.shape.context
        self.key_value = self.qkv[:, 1:] if self.cached is None else self._with_cached(self.cached)
        result = self.kernel(
            self.qkv[:, 0], self.key_value[:, 0], self.key_value[:, 1],
            self.query_starts, self.key_starts, self.key_lengths, context, 2 * context, context - 1,
        )  # fmt: skip
        out[: self.total] = result.flatten(1)

    def save(self) -> list[Tensor]:
        kept, end, context = [], 0, self.shape.context
        for span in self.spans:
            end += span.end - max(0, span.past // context - 1) * context
            first = max(0, span.end // context - 1) * context
            kept.append(self.key_value[end - span.end + first : end].clone())
        return kept

    def _with_cached(self, cached: Sequence[Tensor]) -> Tensor:
        """Keys and values (rows, 2, H, D) of each stream from its origin on: the cached ones, then the new ones."""
        new = torch.split(self.qkv[:, 1:], [span.length for span in self.spans])
        return torch.cat([part for pair in zip(cached, new, strict=True) for part in pair])


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where each of the parts of these lengths begins when they are joined."""
    starts: np.ndarray = np.cumsum(lengths) - lengths
    return starts


def packed_attention(
    spans: Sequence[Span], shape: WindowShape, dtype: torch.dtype, device: torch.device
) -> WindowAttention:
    """`VarlenAttention` with torch's packed flash attention: CUDA, bfloat16.

    Raises RuntimeError where the process has chosen another implementation, whose bits are others.
    """
    if (chosen := current_flash_attention_impl()) is not None:
        raise RuntimeError(
            f"{chosen} is active in this process, and may split sums by the size of a batch: call "
            "torch.nn.attention.restore_flash_attention_impl() first"
        )
    return VarlenAttention(spans, shape, dtype, device, flash_attention)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, query_starts: Tensor, key_starts: Tensor, key_lengths: Tensor,
    max_queries: int, max_keys: int, window: int,
) -> Tensor:  # fmt: skip
    """A `VarlenKernel`: FlashAttention 2 as torch has it. `varlen_attn` calls it too, but takes no lengths of keys."""
    result: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, query_starts, key_starts, max_queries, max_keys, 0.0, False, False,
        window_size_left=window, window_size_right=0, seqused_k=key_lengths,
    )[0]  # fmt: skip
    return result
