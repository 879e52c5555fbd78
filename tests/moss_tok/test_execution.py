"""The GPU's way of carrying out a stage, run on the CPU with its kernels swapped: same codes, and one shape only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch._inductor import list_options

from moss_tok.attention import TiledAttention, VarlenAttention, packed_attention
from moss_tok.execution import COMPILER, GPU_FRAMES, Execution
from moss_tok.numerics import Product
from moss_tok.search import one_kernel

pytestmark = pytest.mark.slow

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def packed_kernel(q, k, v, query_starts, key_starts, key_lengths, max_q, max_k, window):
    """The packed kernel, one sequence at a time through scaled_dot_product_attention."""
    outputs = []
    for sequence, length in enumerate(key_lengths.tolist()):
        a, b = query_starts[sequence : sequence + 2].tolist()
        c = int(key_starts[sequence])
        query = torch.arange(b - a)[:, None] + length - (b - a)
        key = torch.arange(length)
        seen = (key <= query) & (key >= query - window)
        parts = (value.transpose(0, 1) for value in (q[a:b], k[c : c + length], v[c : c + length]))
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
    no_codes = lambda hidden, count, _: torch.zeros(count, len(hidden)).long()  # noqa: E731
    monkeypatch.setattr(v1_tiny.model.quantizer, "encode", no_codes)
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
    assert Execution.for_device(CUDA, torch.float32) == Execution(GPU_FRAMES, TiledAttention, None, one_kernel)
    assert Execution.for_device(CUDA, torch.bfloat16) == Execution(GPU_FRAMES, packed_attention, COMPILER, one_kernel)


def test_more_stages_than_torch_compiles_a_function_for_by_itself():
    """Encoder and decoder of a second codec in one process would be refused."""
    torch.compiler.reset()
    doubled = Execution(64, varlen_on_cpu, "eager").function(lambda x: x + x)
    for rows in range(2, 22):
        assert doubled(torch.ones(rows)).sum() == 2 * rows
    torch.compiler.reset()


@pytest.mark.parametrize("change", [{"static_frames": 8}, {"attention": varlen_on_cpu}, {"compile_backend": "eager"}])
def test_what_codes_depend_on_is_in_the_name(change):
    """The name goes into every manifest, and a run on a machine of another name is refused."""
    execution = Execution.for_device(CUDA, torch.bfloat16)
    assert change.keys() <= {field.name for field in dataclasses.fields(Execution)}
    assert dataclasses.replace(execution, **change).name != execution.name


def test_compiled_kernels_are_chosen_without_measuring(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda method, **options: asked.update(options) or method)
    Execution.for_device(CUDA, torch.bfloat16).function(lambda: None)
    assert asked["options"] == {"deterministic": True}
    assert not asked["dynamic"]
    assert asked["options"].keys() <= set(list_options())
