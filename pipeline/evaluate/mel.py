"""Mel bands by Slaney: triangles on a scale that is linear up to 1 kHz and logarithmic above, each of the same area.

The values are those of `torchaudio.functional.melscale_fbanks(..., norm="slaney", mel_scale="slaney")`, which the
official evaluation uses. They are computed here because torchaudio has to be of one release with torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HERTZ_PER_MEL = 200 / 3
_LINEAR_HERTZ = 1000.0
_LOG_STEP = math.log(6.4) / 27


def mel_bands(bins: int, bands: int, sample_rate: int) -> Tensor:
    """float32 (bins, bands), for spectra whose `bins` go from 0 Hz to half of `sample_rate`, which is in Hz."""
    top = sample_rate / 2
    edges = _to_hertz(torch.linspace(0, _to_mel(top), bands + 2))
    distance = edges - torch.linspace(0, top, bins)[:, None]
    rising, falling = -distance[:, :-2] / edges.diff()[:-1], distance[:, 2:] / edges.diff()[1:]
    return torch.minimum(rising, falling).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))


def _to_mel(hertz: float) -> float:
    if hertz < _LINEAR_HERTZ:
        return hertz / _HERTZ_PER_MEL
    return _LINEAR_HERTZ / _HERTZ_PER_MEL + math.log(hertz / _LINEAR_HERTZ) / _LOG_STEP


def _to_hertz(mels: Tensor) -> Tensor:
    above = mels - _LINEAR_HERTZ / _HERTZ_PER_MEL
    return torch.where(above < 0, mels * _HERTZ_PER_MEL, _LINEAR_HERTZ * torch.exp(_LOG_STEP * above))
