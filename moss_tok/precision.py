"""Full float32 precision whatever the process has set: no TF32, no bfloat16 products, no autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class _ProcessPrecision:
    """The setting of the process. It is held at "highest" while at least one thread computes, and then restored."""

    def __init__(self) -> None:
        self.lock, self.holders, self.chosen = Lock(), 0, "highest"

    def acquire(self) -> None:
        with self.lock:
            if self.holders == 0:
                self.chosen = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("highest")
            self.holders += 1

    def release(self) -> None:
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                torch.set_float32_matmul_precision(self.chosen)


_process_precision = _ProcessPrecision()


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute inside with float32 products in full precision and without autocast."""
    _process_precision.acquire()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _process_precision.release()
