"""Copies between host and device that do not wait for what the device is still computing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`.

    A copy to a GPU comes from pinned memory and takes its turn after what was launched before. A plain copy would wait
    until all of that is done, and then the GPU would wait for what is launched next.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor from a GPU to the host, after what was launched there before.

    Returns a function that waits for the copy and returns it. That function raises what went wrong on the GPU
    meanwhile. A tensor on the host is not copied.
    """
    if tensor.device.type == "cpu":
        return lambda: tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # else a core waits in a busy loop
    copied.record(torch.cuda.current_stream(tensor.device))  # which is not always that of the current device

    def wait() -> Tensor:
        copied.synchronize()
        return copy

    return wait
