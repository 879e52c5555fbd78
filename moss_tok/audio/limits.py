"""What the audio front end accepts, and the closed list of reasons why it refuses a clip."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

AudioSource: TypeAlias = "bytes | bytearray | memoryview | os.PathLike[str]"
"""Encoded audio: its bytes, or the path of a local file (for clips too long to hold in memory)."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "empty": "the clip has no bytes",
        "not_audio": "the bytes are not in any audio format that is read here",
        "no_audio_stream": "the container holds no audio stream",
        "truncated": "the file ends before the audio that it declares",
        "decode_error": "the audio data is damaged or in a form that the decoder refuses",
        "format_change": "the sample rate or the number of channels changes inside the clip",
        "no_samples": "the file is well formed and holds no samples",
        "non_finite": "the waveform holds NaN or infinite values",
        "bad_amplitude": "the waveform goes beyond the allowed magnitude, so it is not scaled to [-1, 1]",
        "bad_sample_rate": "the sample rate is outside the allowed range",
        "too_many_channels": "the clip has more channels than allowed",
        "too_long": "the clip is longer than allowed",
        "too_many_samples": "the clip decodes to more samples than allowed, all channels counted",
        "decode_too_large": "the clip decodes to more samples than may be held in memory at once",
    }
)
"""Every value that `AudioError.reason` can take, with its meaning."""


class AudioError(ValueError):
    """A clip that cannot be used. `reason` is a key of `REASONS`; the message says what was found and what is
    allowed."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise KeyError(f"{reason!r} is not one of the reasons {sorted(REASONS)}")
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return type(self), (self.reason, str(self))  # crosses process borders without losing its reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """Bounds on one clip; the defaults let a 12-hour recording through `decode_blocks`.

    Raises:
        ValueError: a bound is not positive, or the sample-rate range is empty.
    """

    max_seconds: float = 13 * 3600.0
    max_channels: int = 32
    min_sample_rate: int = 100
    max_sample_rate: int = 768_000
    max_samples: int = 2**33
    """Limit of samples over all channels, however the clip is read. It bounds the decoding time of a decompression
    bomb."""
    max_samples_in_memory: int = 2**28
    """Limit of samples over all channels that `decode` returns: 1 GiB of float32."""
    max_amplitude: float = 100.0
    """Largest magnitude of a sample, 40 dB over full scale. Floats scaled like 16-bit integers exceed it."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        if self.min_sample_rate > self.max_sample_rate:
            raise ValueError(f"min_sample_rate {self.min_sample_rate} is above max_sample_rate {self.max_sample_rate}")


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a clip is in its source.

    `format` is the container ("wav", "flac", "mp3", "ogg", "m4a", …), `codec` the coding inside ("pcm_16", "vorbis",
    "mp3", "opus", "aac", …), `sample_rate` in Hz.
    """

    format: str
    codec: str
    sample_rate: int
    channels: int
