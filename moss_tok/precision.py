"""Sums in float32 whatever the process has set: no TF32, no bfloat16 products of float32, no autocast; and on a GPU
one library for products, none of whose sums is split or rounded on the way, and convolutions that are not chosen by
their time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch


@dataclass(frozen=True)
class _Settings:
    """Settings of the process that decide how products and convolutions are rounded."""

    float32: str = "highest"
    bfloat16_sums: tuple[bool, bool] = (False, False)
    """Whether cuBLAS may round partial sums to bfloat16, and whether it may split a sum for that."""
    library: Any = torch._C._BlasBackend.Cublas
    """Which of cuBLAS and cuBLASLt multiplies."""
    convolutions: tuple[bool, bool, bool] = (False, False, True)
    """Whether cuDNN may round to TF32, which it does unless it is told, whether it tries its kernels out and takes the
    fastest, and whether it takes only those that add up in one order."""

    @classmethod
    def current(cls) -> _Settings:
        sums = torch._C._get_cublas_allow_bf16_reduced_precision_reduction()
        cudnn = torch.backends.cudnn
        return cls(
            torch.get_float32_matmul_precision(),
            (sums[0], sums[1]),
            torch.backends.cuda.preferred_blas_library(),
            (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic),
        )

    def apply(self) -> None:
        torch.set_float32_matmul_precision(self.float32)
        torch._C._set_cublas_allow_bf16_reduced_precision_reduction(*self.bfloat16_sums)
        torch.backends.cuda.preferred_blas_library(self.library)
        cudnn = torch.backends.cudnn
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = self.convolutions


class _ProcessPrecision:
    """The settings of the process. They are held while at least one thread computes, and then restored."""

    def __init__(self) -> None:
        self.lock, self.holders = Lock(), 0
        self.held = self.chosen = _Settings()

    def acquire(self) -> None:
        with self.lock:
            if self.holders == 0:
                self.chosen = _Settings.current()
                self.held.apply()
            self.holders += 1

    def release(self) -> None:
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                self.chosen.apply()


_process_precision = _ProcessPrecision()


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute inside with float32 products and convolutions in full precision and without autocast."""
    _process_precision.acquire()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _process_precision.release()
