"""The waveforms of a batch as one column of samples on the model's device, without padding between clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tok.transfer import to_device


def pack_waveforms(chunks: Sequence[Tensor], samples_per_frame: int, device: torch.device) -> Tensor:
    """Chunks (C, samples), each zero-padded to whole frames and joined: (rows, 1) on `device`.

    Channels are interleaved sample by sample: for a stereo codec a stream of L R L R.
    """
    padded = [F.pad(chunk, (0, -chunk.shape[1] % samples_per_frame)) for chunk in chunks]
    return to_device(torch.cat([chunk.T.reshape(-1, 1) for chunk in padded]), device)
