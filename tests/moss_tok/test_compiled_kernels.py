"""What the compiler makes of a layer for an H100, lowered on tensors without data: no kernel more than is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import config
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.utils._triton import has_triton
from triton.backends.compiler import GPUTarget

from benchmarks.codec_models import release_config
from moss_tok.config import TransformerConfig
from moss_tok.linear import Linear
from moss_tok.numerics import Product
from moss_tok.transformer import TransformerLayer, rotated_qkv

pytestmark = pytest.mark.slow  # the compiler asks an assembler for its version

ROWS = 1024
H100 = SimpleNamespace(
    name="H100", major=9, minor=0, multi_processor_count=132, warp_size=32, total_memory=80 * 2**30,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, regs_per_multiprocessor=65536,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, L2_cache_size=50 * 2**20,
)  # fmt: skip


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As far as the compiler asks for it."""
    stands_in: dict[str, Any] = {
        "get_device_properties": H100, "get_device_capability": (9, 0), "current_device": 0, "is_available": True,
        "device_count": 1, "get_device_name": "H100", "synchronize": None, "is_bf16_supported": True,
    }  # fmt: skip
    for name, value in stands_in.items():
        for owner in (torch.cuda, CudaInterface):
            monkeypatch.setattr(owner, name, staticmethod(partial(_given, value)), raising=False)
    monkeypatch.setattr(fake_tensor, "init_gpu_context", lambda device: None)
    driver = SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", 90, 32))
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)
    has_triton.cache_clear()  # another test of this process may have asked, without a GPU
    yield
    has_triton.cache_clear()


def _given(value: Any, *arguments: Any, **options: Any) -> Any:
    return value


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> TransformerLayer:
    """One of the first stage of the release, in bfloat16, without its weights."""
    stage = next(module for module in release_config((1, 1)).encoder if isinstance(module, TransformerConfig))
    with torch.device("meta"):
        layer = TransformerLayer(stage)
    for module in layer.modules():
        if isinstance(module, Linear):
            module.weight.data = module.weight.data.bfloat16()
            module.prepare()
    monkeypatch.setattr(Product, "__call__", lambda product, x: F.linear(x, product.weight))
    return layer


def kernels(function: Callable[..., Any], *inputs: Tensor) -> tuple[int, int]:
    """How many kernels of the compiler and how many products of a library a function becomes."""
    traced = make_fx(torch.func.functionalize(function, remove="mutations"), select_decomp_table())(*inputs)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():

        def on_gpu(tensor: Tensor) -> Tensor:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda:0")

        for name in {node.target for node in traced.graph.nodes if node.op == "get_attr"}:
            tensor = on_gpu(getattr(traced, name))
            delattr(traced, name)
            traced.register_buffer(name, tensor)
        given = [on_gpu(tensor) for tensor in inputs]
        FakeTensorProp(traced, mode).propagate_dont_convert_inputs(*given)
        lowering = GraphLowering(traced, example_inputs=given, is_inference=True)
        with (
            V.set_debug_handler(DebugContext()),
            V.set_graph_handler(lowering),
            V.set_fake_mode(mode),
            config.patch(deterministic=True),
        ):
            lowering.run(*given)
            code = lowering.codegen()[0].value
    return len(re.findall(r"def triton_\w+\(", code)), len(re.findall(r"extern_kernels\.\w*mm\(", code))


def test_a_layer_is_five_kernels_and_four_products(h100, layer):
    """Norm, product, rotation; attention; product, sum with norm, product, activation, product, sum."""
    x, mixed = (torch.empty(ROWS, 768, device="meta", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    cos = torch.empty(ROWS, 1, 1, 32, device="meta")

    def finish(x: Tensor, mixed: Tensor) -> Tensor:
        layer.finish(x, mixed)
        return x

    assert kernels(lambda *given: layer.project(*given), x, cos, cos) == (2, 1)
    assert kernels(finish, x, mixed) == (3, 3)


def test_the_rotation_is_one_kernel(h100):
    qkv = torch.empty(ROWS, 3, 12, 64, dtype=torch.bfloat16, device="meta")
    cos = torch.empty(ROWS, 1, 1, 32, device="meta")
    assert kernels(rotated_qkv, qkv, cos, cos) == (1, 0)
