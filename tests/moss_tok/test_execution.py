"""The GPU's way of carrying out a stage, run on the CPU with its kernels swapped: same codes, and one shape only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from moss_tok.attention import TiledAttention, VarlenAttention, packed_attention
from moss_tok.execution import GPU_FRAMES, Execution
from moss_tok.numerics import Product

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def packed_kernel(q, k, v, query_starts, key_starts, max_q, max_k, *, window_size):
    """torch's varlen_attn, one sequence at a time through scaled_dot_product_attention."""
    outputs = []
    for sequence in range(len(query_starts) - 1):
        a, b = query_starts[sequence : sequence + 2].tolist()
        c, d = key_starts[sequence : sequence + 2].tolist()
        query = torch.arange(b - a)[:, None] + (d - c) - (b - a)
        key = torch.arange(d - c)
        seen = (key <= query) & (key >= query - window_size[0])
        parts = (value.transpose(0, 1) for value in (q[a:b], k[c:d], v[c:d]))
        outputs.append(F.scaled_dot_product_attention(*parts, attn_mask=seen).transpose(0, 1))
    return torch.cat(outputs)


def varlen_on_cpu(spans, shape, dtype, device):
    return VarlenAttention(spans, shape, dtype, device, packed_kernel)


GPU_LIKE = Execution(static_frames=64, attention=varlen_on_cpu)


@pytest.fixture(params=["packed", "packed and compiled"])
def gpu_like(request: pytest.FixtureRequest, golden) -> Iterator[None]:
    """The golden model, carried out as on a GPU; compiled by the backend that runs the captured graph as it is."""
    backend = "eager" if "compiled" in request.param else None
    golden.model.execution = dataclasses.replace(GPU_LIKE, compile_backend=backend)
    yield
    golden.model.execution = None
    torch.compiler.reset()


def test_reference_codes_through_static_rows_and_packed_attention(golden, gpu_like):
    output = golden.model.batch_encode(golden.clips)
    for index in range(len(golden.clips)):
        expected = golden.vectors[f"{index}.codes"].long()
        assert torch.equal(output.audio_codes[:, index, : expected.shape[1]], expected)
        hidden = golden.vectors[f"{index}.hidden"]
        found = output.encoder_hidden_states[index, :, : expected.shape[1]]
        assert (found - hidden).norm() / hidden.norm() < 2e-6


def test_reference_audio_through_static_rows_and_packed_attention(golden, gpu_like):
    name = f"1.audio_nq{golden.model.num_quantizers}"
    expected = golden.vectors[name].reshape(golden.model.number_channels, -1)
    audio = golden.model.decode(golden.vectors["1.codes"]).audio[0]
    assert (audio - expected).norm() / expected.norm() < 2e-6


@pytest.mark.slow
def test_the_batch_is_not_seen_through_packed_attention(golden, gpu_like):
    batch = golden.model.batch_encode(golden.clips)
    chunked = golden.model.batch_encode(golden.clips, chunk_duration=golden.model.encoder.block_frames * 0.08)
    assert torch.equal(chunked.encoder_hidden_states, batch.encoder_hidden_states)
    for index, clip in enumerate(golden.clips):
        alone = golden.model.encode(clip[None])
        length = int(alone.audio_codes_lengths[0])
        assert torch.equal(batch.audio_codes[:, index, :length], alone.audio_codes[:, 0])
        assert torch.equal(batch.encoder_hidden_states[index, :, :length], alone.encoder_hidden_states[0])


def test_every_product_of_a_stage_has_one_number_of_rows(v1_tiny, monkeypatch):
    """64 frames are 512, 256, 128 and 64 rows in the four stages, for one frame as for six hundred."""
    seen = set()

    multiply = Product.__call__

    def spy(product, x):
        seen.add(x.shape[0])
        return multiply(product, x)

    v1_tiny.model.execution = GPU_LIKE
    monkeypatch.setattr(Product, "__call__", spy)
    monkeypatch.setattr(v1_tiny.model.quantizer, "encode", lambda hidden, count: torch.zeros(count, len(hidden)).long())
    try:
        v1_tiny.model.encode(v1_tiny.clips[0])
        v1_tiny.model.batch_encode(v1_tiny.clips)
    finally:
        v1_tiny.model.execution = None
    assert seen == {512, 256, 128, 64}


def test_compiling_captures_each_stage_once(v1_tiny):
    """Layers of one stage share their compiled code: 4 stages of 2 layers give 4 graphs for each of the 2 functions."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    v1_tiny.model.execution = dataclasses.replace(GPU_LIKE, compile_backend=counting)
    try:
        for clip in v1_tiny.clips:
            v1_tiny.model.encode(clip)
    finally:
        v1_tiny.model.execution = None
        torch.compiler.reset()
    assert len(graphs) == 8


def test_the_default_follows_device_and_precision():
    assert Execution.for_device(CPU, torch.float32) == Execution(None, TiledAttention)
    assert Execution.for_device(CPU, torch.bfloat16) == Execution(None, TiledAttention)
    assert Execution.for_device(CUDA, torch.float32) == Execution(GPU_FRAMES, TiledAttention)
    assert Execution.for_device(CUDA, torch.bfloat16) == Execution(GPU_FRAMES, packed_attention)
