"""Encoded audio of any kind into float32 waveforms: decode (whole or in blocks), downmix, resample.

Each format has one decoder, chosen by the file's signature: libsndfile for WAV, FLAC, Ogg Vorbis and MP3, FFmpeg for
the rest. There is no fallback from one to the other, so the same bytes give the same samples at every run.

What comes out is what the decoder gives:

- MP3: encoder delay and padding are removed where a LAME header states them.
- Opus: pre-skip and end trimming are applied, always at 48 kHz.
- AAC in M4A: FFmpeg applies the edit list; raw ADTS keeps the encoder's delay.

A cut file is a `truncated` error wherever the format makes that visible. It does not in an MP3 without a Xing or
VBRI header, in raw AAC, AMR and G.722, in a FLAC of unknown length cut at a frame border, and in WAV written to a pipe.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moss_tok.audio.container import Container, identify
from moss_tok.audio.decoders import check_length, read_pyav, read_soundfile
from moss_tok.audio.limits import REASONS, AudioError, AudioInfo, AudioLimits, AudioSource
from moss_tok.audio.resample import StreamingResampler, resample, resampled_length

__all__ = [
    "REASONS",
    "AudioError",
    "AudioInfo",
    "AudioLimits",
    "AudioSource",
    "StreamingResampler",
    "decode",
    "decode_blocks",
    "resample",
    "resampled_length",
    "to_channels",
]

Waveform = NDArray[np.float32]

_DEFAULT_LIMITS = AudioLimits()


def decode(
    source: AudioSource, limits: AudioLimits = _DEFAULT_LIMITS, *, name: str | None = None
) -> tuple[AudioInfo, Waveform]:
    """Decode a clip whole.

    Args:
        source: the encoded bytes, or the path of a local file.
        limits: bounds on the clip; checked on what is decoded, so no header is trusted.
        name: the clip's name or key, consulted for G.722 only (suffix ".g722"), which has no signature.

    Returns:
        What the clip is, and its waveform: float32 (channels, samples) at `info.sample_rate`, nominally in [-1, 1].

    Raises:
        AudioError: the clip cannot be used; `reason` is a key of `REASONS`. No other exception stands for a bad clip.
        OSError: a path cannot be opened.
    """
    info, blocks = decode_blocks(source, limits, name=name)
    held, total = [], 0
    for block in blocks:
        total += block.size
        if total > limits.max_samples_in_memory:
            raise AudioError(
                "decode_too_large",
                f"the clip decodes to more than {limits.max_samples_in_memory} samples over {info.channels} channels, "
                "the most that may be held in memory; read it with decode_blocks",
            )
        held.append(block)
    return info, held[0] if len(held) == 1 else np.concatenate(held, axis=1)


def decode_blocks(
    source: AudioSource,
    limits: AudioLimits = _DEFAULT_LIMITS,
    *,
    block_seconds: float = 10.0,
    name: str | None = None,
) -> tuple[AudioInfo, Iterator[Waveform]]:
    """Decode a clip of any length in bounded memory; arguments and errors are those of `decode`.

    Returns:
        What the clip is, and an iterator over its waveform in order: float32 (channels, n), n > 0, each about
        `block_seconds` long and at most 16 MiB, plus one codec frame. The iterator raises AudioError where the clip
        turns out to be bad, at its end for one that is truncated: what came before must then be discarded.
    """
    if not block_seconds > 0:
        raise ValueError(f"block_seconds must be above 0, got {block_seconds!r}")
    file = _open(source)
    try:
        container = identify(file, name)
        read = read_soundfile if container.demuxer is None else read_pyav
        with _refusals(container):
            info, declared, blocks = read(file, container, limits, block_seconds)
        if declared is not None:
            check_length(declared, info.sample_rate, info.channels, limits)
    except BaseException:
        file.close()
        raise
    return info, _checked(file, container, info, declared, blocks, limits)


def _open(source: AudioSource) -> BufferedIOBase:
    return io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else Path(source).open("rb")


@contextmanager
def _refusals(container: Container) -> Iterator[None]:
    """Turn whatever a decoder raises into an AudioError.

    Both libraries, and the glue around them, raise many types on hostile bytes (even IndexError and OverflowError);
    for the clip they all mean that it cannot be decoded.
    """
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        decoder = "libsndfile" if container.demuxer is None else "FFmpeg"
        # The libraries' own words only: the full texts hold memory addresses, and a reject must read alike every time.
        words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or type(error).__name__
        reason = "truncated" if isinstance(error, EOFError) else "decode_error"
        raise AudioError(reason, f"{decoder} cannot decode this {container.format} file: {words}") from error


def _checked(
    file: BufferedIOBase,
    container: Container,
    info: AudioInfo,
    declared: int | None,
    blocks: Iterator[Waveform],
    limits: AudioLimits,
) -> Iterator[Waveform]:
    """Pass blocks on while they keep to the limits. At the end compare their sum with the declared length."""
    total = 0
    with file:
        while True:
            with _refusals(container):
                block = next(blocks, None)
            if block is None:
                break
            if container.exact and declared is not None and total + block.shape[1] > declared:
                block = block[:, : declared - total]
                if not block.shape[1]:
                    break
            total += block.shape[1]
            check_length(total, info.sample_rate, info.channels, limits)
            _check_values(block, limits)
            yield block
    if declared is not None and total < declared:
        raise AudioError(
            "truncated",
            f"the {info.format} file promises {declared} samples per channel and {total} come out",
        )
    if total == 0:
        raise AudioError("no_samples", f"the {info.format} file decodes to 0 samples")


def _check_values(block: Waveform, limits: AudioLimits) -> None:
    low, high = float(block.min()), float(block.max())  # NaN passes through both
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AudioError("non_finite", "the waveform holds NaN or infinite values")
    if max(-low, high) > limits.max_amplitude:
        raise AudioError(
            "bad_amplitude",
            f"the waveform reaches {max(-low, high):g}; full scale is 1, the limit {limits.max_amplitude:g}",
        )


def to_channels(waveform: Waveform, channels: int) -> Waveform:
    """Bring a (n, samples) waveform to (channels, samples), for `channels` 1 or 2.

    To mono: the mean of all channels. To stereo: mono goes to both sides; more than two channels carry no layout that
    could be relied on, so both sides get their mean and nothing is dropped. A waveform that fits is returned as it is.

    Raises:
        ValueError: `channels` is not 1 or 2, or the waveform is not two-dimensional with at least one channel.
    """
    if channels not in (1, 2):
        raise ValueError(f"channels must be 1 or 2, got {channels}")
    if waveform.ndim != 2 or waveform.shape[0] == 0:
        raise ValueError(f"a waveform must be of shape (channels, samples), got {waveform.shape}")
    if waveform.shape[0] == channels:
        return waveform
    # One channel after the other: numpy's mean adds in an order that depends on the shape and the layout in memory.
    mono = waveform[:1].copy()
    for channel in range(1, waveform.shape[0]):
        mono += waveform[channel]
    mono /= np.float32(waveform.shape[0])
    return mono if channels == 1 else np.repeat(mono, 2, axis=0)
