"""From the host to a device without waiting for what the device still computes."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. To a GPU it goes from pinned memory, in its turn among what was launched before; a plain
    copy would wait until all of that is done, and the GPU would then wait for what is launched next."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
