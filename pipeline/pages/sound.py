"""Sounds that a page can hold and any browser plays."""

from __future__ import annotations

import io

import numpy as np
import soundfile


def flac(waveform: np.ndarray, sample_rate: int) -> bytes:
    """FLAC of 16 bits: what is heard is what was decoded, and every browser plays it.

    `waveform` is float32 (channels, samples); what is beyond full scale is clipped.
    """
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(waveform, -1, 1).T, sample_rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
