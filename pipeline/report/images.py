"""Pictures as PNG data URIs: indexed colours from one map, written with zlib alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

SHADES = 64
"""Colours of a picture: more cannot be told apart, and fewer compress better."""

_STOPS = ((13, 17, 28), (28, 44, 84), (38, 92, 122), (62, 146, 132), (150, 192, 120), (246, 230, 150), (255, 250, 228))
"""Equally far apart, from faint to loud; lightness only ever rises, so that it reads without colours too."""


def palette() -> np.ndarray:
    """uint8 (SHADES, 3): red, green and blue."""
    stops = np.array(_STOPS, float)
    where = np.linspace(0, len(stops) - 1, SHADES)
    return np.stack([np.interp(where, range(len(stops)), stops[:, channel]) for channel in range(3)], 1).astype(
        np.uint8
    )


def png(shades: np.ndarray) -> bytes:
    """A PNG of `shades` (height, width), each from 0 to 1, first row at the top.

    Indexed colours, no filter (PNG specification, 3rd edition, sections 11.2 and 12.7).
    """
    pixels = np.rint(shades * (SHADES - 1)).astype(np.uint8)
    height, width = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette().tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def data_uri(kind: str, data: bytes) -> str:
    """`data` as a URI that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
