"""The waveforms of a batch as one column of samples on the model's device, without padding between clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pack_waveforms(chunks: Sequence[Tensor], samples_per_frame: int, device: torch.device) -> Tensor:
    """Chunks (C, samples), each zero-padded to whole frames and joined: (rows, 1) on `device`.

    Channels are interleaved sample by sample: for a stereo codec a stream of L R L R.
    """
    first, channels = chunks[0], chunks[0].shape[0]
    silence = first.new_zeros(samples_per_frame * channels)
    parts = []
    for chunk in chunks:
        parts += [chunk.T.reshape(-1), silence[: -chunk.shape[1] % samples_per_frame * channels]]
    # A GPU takes it from pinned memory, in its turn, so it is written there: once.
    pinned = device.type == "cuda" and first.device.type == "cpu"
    packed = first.new_empty(sum(map(Tensor.numel, parts)), pin_memory=pinned)
    return torch.cat(parts, out=packed)[:, None].to(device, non_blocking=True)
