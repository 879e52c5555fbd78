"""Windowed attention over packed clips: both kernels against the definition, and nothing quadratic."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from moss_tok.attention import Span, TiledAttention, VarlenAttention, WindowShape, band_mask, packed_attention
from moss_tok.execution import Execution

HEADS, HEAD_DIM = 2, 16


def reference(q: Tensor, k: Tensor, v: Tensor, context: int) -> Tensor:
    """The definition, in float64 with a dense mask: query p sees keys p - context < k <= p. (T, H, D) -> (T, H * D)."""
    steps = torch.arange(len(q))
    seen = (steps[None] <= steps[:, None]) & (steps[None] > steps[:, None] - context)
    scores = torch.einsum("qhd,khd->hqk", q.double(), k.double()) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v.double()).flatten(1)


def packed_kernel_reference(q, k, v, query_starts, key_starts, key_lengths, max_q, max_k, window):
    """What the packed kernel computes, written out: `window` keys before the query's own, aligned at the end."""
    outputs = []
    assert len(query_starts) == len(key_starts) == len(key_lengths) + 1
    for sequence, length in enumerate(key_lengths.tolist()):
        a, b = query_starts[sequence : sequence + 2].tolist()
        c = int(key_starts[sequence])
        d = c + length
        assert 0 < b - a <= max_q
        assert 0 < length <= max_k
        assert 0 <= c < d <= len(k)
        query = torch.arange(b - a)[:, None] + length - (b - a)
        key = torch.arange(length)
        seen = (key <= query) & (key >= query - window)
        scores = torch.einsum("qhd,khd->hqk", q[a:b].double(), k[c:d].double()) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v[c:d].double()).to(q.dtype))
    return torch.cat(outputs)


def make(kind: str, spans: list[Span], context: int):
    shape = WindowShape(context, HEADS, HEAD_DIM)
    cpu = torch.device("cpu")
    if kind == "tiled":
        return TiledAttention(spans, shape, torch.float32, cpu)
    return VarlenAttention(spans, shape, torch.float32, cpu, packed_kernel_reference)


def attend(attention, qkv: Tensor) -> Tensor:
    attention.write(slice(0, len(qkv)), qkv)
    out = torch.zeros(len(qkv), HEADS * HEAD_DIM)
    attention.attend(out)
    return out


def random_qkv(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 3, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["tiled", "varlen"])
@pytest.mark.parametrize("context", [1, 5, 32, 50, 64, 300])
def test_each_clip_sees_exactly_its_window(kind, context):
    lengths = [1, 31, 32, 33, 64, 257, 700]
    qkv = random_qkv(sum(lengths))
    out = attend(make(kind, [Span(0, length) for length in lengths], context), qkv)
    for clip, result in zip(qkv.split(lengths), out.split(lengths), strict=True):
        expected = reference(clip[:, 0], clip[:, 1], clip[:, 2], context)
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["tiled", "varlen"])
@pytest.mark.parametrize("chunk", [1, 8, 50, 100, 130])
def test_streams_see_the_window_through_their_cache(kind, chunk):
    """Two streams, one of them 37 steps ahead, in chunks; the cache never holds much more than the context."""
    context, length = 50, 260
    streams = [random_qkv(length, seed) for seed in (1, 2)]
    done = [0, 0]
    caches = [torch.empty(0, 2, HEADS, HEAD_DIM)] * 2
    outputs: list[list[Tensor]] = [[], []]
    steps = [37, 0]
    while min(done) < length:
        spans = [Span(d, min(s, length - d)) for d, s in zip(done, steps, strict=True)]
        active = [i for i in (0, 1) if spans[i].length]
        attention = make(kind, [spans[i] for i in active], context)
        attention.load([caches[i] for i in active])
        rows = torch.cat([streams[i][done[i] : done[i] + spans[i].length] for i in active])
        results = attend(attention, rows).split([spans[i].length for i in active])
        for i, result, cache in zip(active, results, attention.save(), strict=True):
            outputs[i].append(result)
            caches[i] = cache
            done[i] += spans[i].length
            assert len(cache) < 2 * context + 64
        steps = [chunk, chunk]
    for stream, parts in zip(streams, outputs, strict=True):
        expected = reference(stream[:, 0], stream[:, 1], stream[:, 2], context)
        torch.testing.assert_close(torch.cat(parts).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["tiled", "varlen"])
def test_chunks_of_whole_contexts_are_equal_bit_for_bit(kind):
    context, length = 40, 200
    stream = random_qkv(length)
    whole = attend(make(kind, [Span(0, length)], context), stream)
    cache = torch.empty(0, 2, HEADS, HEAD_DIM)
    for start in range(0, length, 80):
        attention = make(kind, [Span(start, min(80, length - start))], context)
        attention.load([cache])
        out = attend(attention, stream[start : start + 80])
        cache = attention.save()[0]
        assert torch.equal(out, whole[start : start + 80])


@pytest.mark.parametrize("kind", ["tiled", "varlen"])
def test_rows_may_be_written_in_pieces_and_padding_rows_are_ignored(kind):
    lengths = [90, 3, 40]
    spans = [Span(0, length) for length in lengths]
    qkv = random_qkv(150)
    qkv[133:] = float("nan")
    expected = attend(make(kind, spans, 50), qkv[:133])
    attention = make(kind, spans, 50)
    for start in range(0, 150, 25):
        attention.write(slice(start, start + 25), qkv[start : start + 25])
    out = torch.zeros(150, HEADS * HEAD_DIM)
    attention.attend(out)
    assert torch.equal(out[:133], expected)
    assert out[133:].eq(0).all()


def test_the_packed_kernel_is_given_views_of_the_projected_rows():
    """Without gathers: overlapping ranges of keys are said by their starts and lengths alone."""
    qkv, seen = random_qkv(150), {}

    def spy(q, k, v, query_starts, key_starts, key_lengths, *rest):
        seen.update(places=[value.data_ptr() for value in (q, k, v)], starts=query_starts.tolist())
        seen.update(keys=list(zip(key_starts.tolist(), key_lengths.tolist(), strict=False)))
        return packed_kernel_reference(q, k, v, query_starts, key_starts, key_lengths, *rest)

    shape, device = WindowShape(50, HEADS, HEAD_DIM), torch.device("cpu")
    attend(VarlenAttention([Span(0, 120), Span(0, 30)], shape, torch.float32, device, spy), qkv)
    assert seen["places"] == [qkv[:, part].data_ptr() for part in range(3)]
    assert seen["starts"] == [0, 50, 100, 120, 150]
    assert seen["keys"] == [(0, 50), (0, 100), (50, 70), (120, 30)]


def test_another_flash_attention_of_the_process_is_refused(monkeypatch):
    """FlashAttention 3 splits sums by a heuristic of its own."""
    monkeypatch.setattr("moss_tok.attention.current_flash_attention_impl", lambda: "FA3")
    with pytest.raises(RuntimeError, match=r"FA3 is active .*restore_flash_attention_impl"):
        packed_attention([Span(0, 8)], WindowShape(4, HEADS, HEAD_DIM), torch.bfloat16, torch.device("cpu"))


def test_the_kernel_of_torch_takes_what_it_is_given():
    """On tensors without data, as on a GPU: names and kinds of the operator's arguments are checked."""
    meta = torch.device("meta")
    spans = [Span(0, 120), Span(0, 30)]
    attention = packed_attention(spans, WindowShape(50, HEADS, HEAD_DIM), torch.bfloat16, meta)
    attention.write(slice(0, 160), torch.empty(160, 3, HEADS, HEAD_DIM, dtype=torch.bfloat16, device=meta))
    out = torch.empty(160, HEADS * HEAD_DIM, dtype=torch.bfloat16, device=meta)
    attention.attend(out)
    assert attention.query_starts.dtype == attention.key_lengths.dtype == torch.int32


@pytest.mark.slow
def test_the_mask_is_a_band_and_no_larger_than_a_tile_needs(monkeypatch):
    """An hour at 100 Hz never asks for a mask of more than tile x (context + tile)."""
    asked = []

    def spy(queries, keys, *rest):
        asked.append((queries, keys))
        return band_mask(queries, keys, *rest)

    monkeypatch.setattr("moss_tok.attention.band_mask", spy)
    attention = TiledAttention([Span(0, 360_000)], WindowShape(1000, 1, 2), torch.float32, torch.device("cpu"))
    attention.attend(torch.zeros(360_000, 2))
    assert {queries for queries, _ in asked} == {64}
    assert max(keys for _, keys in asked) == 1064


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_of_each_device_agrees_with_the_definition(device, dtype):
    lengths = [700, 33]
    qkv = random_qkv(733).to(device, dtype)
    make_attention = Execution.for_device(device, dtype).attention
    attention = make_attention([Span(0, n) for n in lengths], WindowShape(300, HEADS, HEAD_DIM), dtype, device)
    attention.write(slice(0, 733), qkv)
    out = torch.zeros(733, HEADS * HEAD_DIM, dtype=dtype, device=device)
    attention.attend(out)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for clip, result in zip(qkv.cpu().split(lengths), out.cpu().split(lengths), strict=True):
        expected = reference(clip[:, 0], clip[:, 1], clip[:, 2], 300)
        torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
