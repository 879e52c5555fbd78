"""Pictures as PNG data URIs, in the colours of one map."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

SHADES = 64
"""Number of colours in a picture. More could not be told apart; fewer compress better."""

_STOPS = ((13, 17, 28), (28, 44, 84), (38, 92, 122), (62, 146, 132), (150, 192, 120), (246, 230, 150), (255, 250, 228))
"""Equally spaced colours from faint to loud. Lightness only rises, so the picture is readable without colours."""


def palette() -> np.ndarray:
    """uint8 (SHADES, 3): red, green and blue."""
    stops = np.array(_STOPS, float)
    where = np.linspace(0, len(stops) - 1, SHADES)
    return np.stack([np.interp(where, range(len(stops)), stops[:, channel]) for channel in range(3)], 1).astype(
        np.uint8
    )


def png(shades: np.ndarray) -> bytes:
    """A PNG of `shades` (height, width), each from 0 to 1, first row at the top, in indexed colours."""
    image = Image.fromarray(np.rint(shades * (SHADES - 1)).astype(np.uint8))
    image.putpalette(palette().tobytes())
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """A data URI with `data`, of the media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
