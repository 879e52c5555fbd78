"""The search for all codes in one kernel: what it computes, and when it is trusted. The kernel itself is carried out by
Triton's interpreter, and compiled for GPUs that are not here."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from moss_tok import MossAudioTokenizerModel
from moss_tok.execution import Execution
from moss_tok.search import OneKernel, SearchConstants, launch_kernel, one_kernel, search_by_sums, undecided_rows
from moss_tok.search_kernel import search
from pipeline.codecs.moss_codec import MossCodec, with_execution
from tests.support import ROOT

CUDA = torch.device("cuda")


def constants_of(model: MossAudioTokenizerModel) -> SearchConstants:
    return SearchConstants(model.quantizer.directions, model.quantizer.codebooks, model.quantizer.corrections)


@pytest.fixture
def model(v1_tiny) -> MossAudioTokenizerModel:
    """One of its own, with the codes of the release."""
    return MossAudioTokenizerModel.from_pretrained(v1_tiny.folder, parts="encoder")


def by_products(constants: SearchConstants, projected: torch.Tensor, count: int) -> torch.Tensor:
    """The same search, whose sums a library puts in its own order."""
    left, width, codes = projected.clone(), constants.shape[2], []
    for layer in range(count):
        codes.append((left[:, layer * width : (layer + 1) * width] @ constants.directions[layer].T).argmax(dim=1))
        left -= constants.codebooks[layer][codes[-1]] @ constants.corrections[layer].T
    return torch.stack(codes)


def pretend(constants: SearchConstants, compute=search_by_sums):
    """A launch that computes on the CPU what the kernel should."""

    def launch(programs, projected, directions, codebooks, corrections, codes, rows, COUNT, ROWS, **sizes):
        assert programs == -(-rows // ROWS)
        codes.copy_(compute(constants, projected, COUNT))

    return launch


def test_its_sums_give_the_codes_of_the_release(model, v1_tiny):
    def by_sums(constants):
        return lambda projected, count: search_by_sums(constants, projected, count)

    model.execution = dataclasses.replace(Execution.for_device(model.device, model.dtype), search=by_sums)
    for index in range(4):
        codes = model.encode(v1_tiny.clips[index]).audio_codes[:, 0]
        assert torch.equal(codes, v1_tiny.vectors[f"{index}.codes"].long())
    few = model.encode(v1_tiny.clips[2], num_quantizers=3).audio_codes[:, 0]
    assert torch.equal(few, v1_tiny.vectors["2.codes"][:3].long())


def test_a_kernel_that_computes_what_it_says_is_taken_and_named(model):
    constants = constants_of(model)
    plain = model.numerics.name
    asked = []

    def factory(constants):
        asked.append(constants)
        return one_kernel(constants, pretend(constants))

    model.execution = dataclasses.replace(Execution.for_device(model.device, model.dtype), search=factory)
    assert model.numerics.name == plain + ", codes in one kernel"
    model.encode(torch.zeros(1, 1, 4000))
    assert len(asked) == 1, "it is probed once"
    assert torch.equal(asked[0].directions, constants.directions)
    model.execution = None
    assert model.numerics.name == plain


def test_sums_in_another_order_are_found_out(model, caplog):
    """Where each score is decided by its rounding, a library's sums choose other codes."""
    constants = constants_of(model)
    projected = undecided_rows(constants, 40)
    other = by_products(constants, projected, 32) != search_by_sums(constants, projected, 32)
    assert other.any(dim=1).sum() > 16, "in most layers"
    factory = lambda constants: one_kernel(constants, pretend(constants, by_products))  # noqa: E731
    model.execution = dataclasses.replace(Execution.for_device(model.device, model.dtype), search=factory)
    with caplog.at_level(logging.WARNING, "moss_tok"):
        assert "one kernel" not in model.numerics.name
    assert "its codes are others than those of its sums" in caplog.text


def test_without_a_compiler_codes_are_searched_for_by_products(model, caplog):
    def launch(*arguments, **options):
        raise RuntimeError("Failed to find C compiler")

    with caplog.at_level(logging.WARNING, "moss_tok"):
        assert one_kernel(constants_of(model), launch) is None
    assert "by products, and not in one kernel: RuntimeError: Failed to find C compiler" in caplog.text


def test_no_memory_for_the_probe_is_no_reason_to_compute_otherwise(model):
    """Else codes would depend on what else is on the GPU."""

    def launch(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        one_kernel(constants_of(model), launch)


def test_quantizers_that_fill_more_than_a_program_has_room_for_are_left_to_products():
    wide = SearchConstants(torch.zeros(32, 4, 64), torch.zeros(32, 4, 64), torch.zeros(32, 32 * 64, 64))
    assert one_kernel(wide, lambda *arguments, **options: pytest.fail("launched")) is None


def test_it_is_off_where_nothing_is_to_be_compiled(model, monkeypatch):
    monkeypatch.setattr(MossAudioTokenizerModel, "device", CUDA)
    monkeypatch.setattr(MossCodec, "execution", Execution.for_device(CUDA, torch.bfloat16))
    assert with_execution(MossCodec(model), None, False).model.execution.search is None
    assert with_execution(MossCodec(model), None, True).model.execution.search is one_kernel


def test_the_kernel_itself_through_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.moss_tok.search_trial"]
    said = json.loads(subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    assert set(said.values()) == {True}, said


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_its_launch_compiles_for_a_gpu_into_registers_and_without_fused_sums(
    capability: int, v1_tiny, tmp_path, monkeypatch
):
    """With the released number of quantizers and codes, from the call of the launch up to the GPU."""
    compiled = []

    def up_to_the_gpu(*arguments, warmup, **options):
        compiled.append(JITFunction.run(search, *arguments, warmup=True, **options))

    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
        get_current_device=lambda: capability,  # under which Triton keeps what it has compiled
        get_current_stream=lambda device: 0,
    )
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(search, "run", up_to_the_gpu, raising=False)
    constants = constants_of(v1_tiny.model)
    assert constants.shape == (32, 1024, 8)
    for rows in (16, 17):  # one number for which Triton likes to compile another kernel, and one for which not
        OneKernel(constants, launch_kernel)(torch.zeros(rows, 32 * 8), 32)
    assert compiled[0] is compiled[1]
    assembly = compiled[0].asm["ptx"]
    assert "mul.rn.f32" in assembly, "rounded products"
    assert not re.findall(r"\bfma|\bmad\.\w*f32|ftz|tf32", assembly)
    assert compiled[0].metadata.shared <= 8192
    used = resources(compiled[0].asm["cubin"])
    assert used["REG"] <= 200
    assert used["STACK"] == 0, "nothing is spilled to memory"


def resources(binary: bytes) -> dict[str, int]:
    """What a thread takes, as the tool of CUDA that Triton brings reads it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(binary)
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK):(\d+)", said)}
