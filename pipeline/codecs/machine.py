"""The kind of machine that codes are computed on: what their bits depend on besides the settings of the run.

Two machines of one kind give the same codes. Between kinds, sums are rounded in another order, and a few codes in a
thousand differ (docs/benchmarks.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from pipeline.codecs.protocol import Codec

Machine: TypeAlias = "Mapping[str, str]"
"""Names and values, for people and to be compared; empty where nothing is known."""

NOT_RECORDED = "not recorded"
_ORDER = ("processor", "instructions", "CUDA", "kernels", "torch")
LIMITS = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
"""Variables that take instructions from a CPU."""
GPU_VARIABLES = (
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "TORCH_COMPILE_DISABLE",
    "TORCHDYNAMO_DISABLE",
    "TORCHINDUCTOR_EMULATE_PRECISION_CASTS",
    "TORCHINDUCTOR_MAX_AUTOTUNE",
    "TORCHINDUCTOR_MAX_AUTOTUNE_GEMM",
)
"""Variables that have a GPU compute otherwise than torch is told: libraries and the compiler obey them."""


def describe_machine(codec: Codec, device: str) -> Machine:
    """The kind of machine that this process computes on with this codec, on a device such as "cpu" or "cuda:0"."""
    import torch  # in this module's functions: commands that only name a machine start in a second without it

    processor = _gpu(device) if device.startswith("cuda") else _cpu()
    return {**processor, "kernels": codec.numerics, "torch": str(torch.__version__)}


def name_machine(machine: Machine) -> str:
    """One line for people."""
    names = [name for name in _ORDER if name in machine] + sorted(machine.keys() - set(_ORDER))
    return ", ".join(_said(name, machine[name]) for name in names) or NOT_RECORDED


def machine_differences(there: Machine, here: Machine) -> list[str]:
    """A line for each thing in which two kinds differ."""
    return [
        f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]


def _said(name: str, value: str) -> str:
    return f"{name} {value}" if name in ("torch", "CUDA") else value


def _cpu() -> dict[str, str]:
    import torch

    said = torch.backends.cpu.get_cpu_capability()
    instructions = [said, *(["AMX"] if torch.cpu._is_amx_tile_supported() else [])]
    return {"processor": f"{_vendor()} CPU", "instructions": " ".join([*instructions, *_that_are_set(LIMITS)])}


def _gpu(device: str) -> dict[str, str]:
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device)
    instructions = " ".join([f"sm_{major}{minor}", *_that_are_set(GPU_VARIABLES)])
    return {"processor": name, "instructions": instructions, "CUDA": str(torch.version.cuda)}


def _that_are_set(variables: Sequence[str]) -> list[str]:
    return [f"{name}={value}" for name in variables if (value := os.environ.get(name))]


def _vendor() -> str:
    """Libraries choose kernels by the maker of a CPU too."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return os.uname().machine
