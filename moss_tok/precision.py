"""Sums in float32 whatever the process has set: no TF32, no bfloat16 products of float32, no autocast; and on a GPU
one library for products, none of whose sums is split or rounded on the way, and convolutions that are not chosen by
their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import torch

T = TypeVar("T")

OPERATIONS = [(backend, operation) for backend in ("cuda", "mkldnn") for operation in ("matmul", "conv", "rnn")]


@dataclass(frozen=True)
class _Settings:
    """Settings of the process that decide how products and convolutions are rounded.

    torch has two interfaces to the precision of float32, and each is refused in part where the other was used. So both
    are set, and of the older one what it tells, which is None otherwise.
    """

    products: str | None = "highest"
    tf32_convolutions: bool | None = False
    """Which cuDNN computes unless it is told."""
    float32: tuple[str, ...] = ("ieee",) * len(OPERATIONS)
    """Of each of OPERATIONS."""
    bfloat16_sums: tuple[bool, bool] = (False, False)
    """Whether cuBLAS may round partial sums to bfloat16, and whether it may split a sum for that."""
    library: Any = torch._C._BlasBackend.Cublas
    """Which of cuBLAS and cuBLASLt multiplies."""
    choice: tuple[bool, bool] = (False, True)
    """Whether cuDNN tries its kernels out and takes the fastest, and whether it takes only those that add up in one
    order."""

    @classmethod
    def current(cls) -> _Settings:
        sums = torch._C._get_cublas_allow_bf16_reduced_precision_reduction()
        return cls(
            _unless_refused(torch.get_float32_matmul_precision),
            _unless_refused(torch._C._get_cudnn_allow_tf32),
            tuple(torch._C._get_fp32_precision_getter(*operation) for operation in OPERATIONS),
            (sums[0], sums[1]),
            torch.backends.cuda.preferred_blas_library(),
            (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        )

    def apply(self) -> None:
        if self.products is not None:
            torch.set_float32_matmul_precision(self.products)
        if self.tf32_convolutions is not None:
            torch._C._set_cudnn_allow_tf32(self.tf32_convolutions)
        for operation, precision in zip(OPERATIONS, self.float32, strict=True):
            torch._C._set_fp32_precision_setter(*operation, precision)
        torch._C._set_cublas_allow_bf16_reduced_precision_reduction(*self.bfloat16_sums)
        torch.backends.cuda.preferred_blas_library(self.library)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = self.choice


def _unless_refused(setting: Callable[[], T]) -> T | None:
    try:
        return setting()
    except RuntimeError:
        return None


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
