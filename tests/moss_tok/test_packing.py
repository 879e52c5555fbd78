"""What the encoder is given: every clip's samples, interleaved, whole frames long, end to end."""

from __future__ import annotations

import torch

from moss_tok.packing import pack_waveforms

CPU = torch.device("cpu")


def test_clips_lie_end_to_end_in_whole_frames():
    packed = pack_waveforms([torch.ones(1, 3), 2 * torch.ones(1, 4), 3 * torch.ones(1, 5)], 4, CPU)
    assert packed[:, 0].tolist() == [1, 1, 1, 0, 2, 2, 2, 2, 3, 3, 3, 3, 3, 0, 0, 0]


def test_channels_are_interleaved():
    stereo = torch.tensor([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])
    assert pack_waveforms([stereo], 2, CPU)[:, 0].tolist() == [1, -1, 2, -2, 3, -3, 0, 0]
