"""Checks of what callers pass to the codec: shapes, dtypes, lengths and ranges, each with an error that says what is
allowed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moss_tok.config import MossAudioTokenizerConfig

CHUNK_TOLERANCE = 1e-6


def waveform_tensor(values: object, name: str) -> Tensor:
    """A floating-point waveform of any shape as float32. Raises TypeError for other types, ValueError for NaN or
    infinity.
    """
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values)
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch tensor or numpy array, got {type(values).__name__}")
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating point in [-1, 1], got {values.dtype}; divide 16-bit samples by 32768")
    values = values.detach().to(torch.float32)
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite samples (or float64 samples beyond float32)")
    return values


def batch_of_waveforms(values: object, mask: object, config: MossAudioTokenizerConfig) -> list[Tensor]:
    """`input_values` (B, C, T), (B, T) or (T,) and a prefix mask (B, T) -> one (C, samples) tensor per clip."""
    channels = config.number_channels
    waveform = waveform_tensor(values, "input_values")
    allowed = f"(batch, {channels}, samples)" + (
        ", (batch, samples) or (samples,)" if channels == 1 else f" or ({channels}, samples)"
    )
    if channels == 1 and waveform.dim() in (1, 2):
        waveform = waveform[None, None] if waveform.dim() == 1 else waveform[:, None]
    elif channels > 1 and waveform.dim() == 2:
        waveform = waveform[None]
    if waveform.dim() != 3 or waveform.shape[1] != channels:
        raise ValueError(f"input_values must be {allowed}, got {tuple(getattr(values, 'shape', ()))}")
    batch, _, samples = waveform.shape
    if batch == 0 or samples == 0:
        raise ValueError(f"input_values has no samples: {tuple(waveform.shape)}; a clip needs at least 1 sample")
    lengths = mask_lengths(mask, (batch, samples))
    return [clip[:, :length] for clip, length in zip(waveform, lengths, strict=True)]


def list_of_waveforms(values: object, config: MossAudioTokenizerConfig) -> list[Tensor]:
    """A list of (samples,) or (C, samples) waveforms -> one (C, samples) tensor per clip."""
    channels = config.number_channels
    if not isinstance(values, list | tuple) or not values:
        raise TypeError(
            f"batch_encode takes a list of at least one waveform, got {type(values).__name__} {_size(values)}"
        )
    clips = []
    for index, value in enumerate(values):
        clip = waveform_tensor(value, f"waveform {index}")
        if clip.dim() == 1 and channels == 1:
            clip = clip[None]
        if clip.dim() != 2 or clip.shape[0] != channels:
            shapes = "(samples,) or (1, samples)" if channels == 1 else f"({channels}, samples)"
            raise ValueError(f"waveform {index} must be {shapes}, got {tuple(clip.shape)}")
        if clip.shape[1] == 0:
            raise ValueError(f"waveform {index} has no samples; a clip needs at least 1 sample")
        clips.append(clip)
    return clips


def batch_of_codes(values: object, mask: object, config: MossAudioTokenizerConfig) -> list[Tensor]:
    """`audio_codes` (num_quantizers, B, frames) or (num_quantizers, frames) -> one (num_quantizers, frames) int64 per
    clip.
    """
    codes = codes_tensor(values, "audio_codes", config)
    if codes.dim() == 2:
        codes = codes[:, None]
    if codes.dim() != 3:
        raise ValueError(
            f"audio_codes must be (num_quantizers, batch, frames) or (num_quantizers, frames), got {tuple(codes.shape)}"
        )
    _, batch, frames = codes.shape
    if batch == 0 or frames == 0:
        raise ValueError(f"audio_codes has no frames: {tuple(codes.shape)}")
    lengths = mask_lengths(mask, (batch, frames))
    clips = [codes[:, clip, :length] for clip, length in enumerate(lengths)]
    for clip in clips:
        check_code_range(clip, "audio_codes", config)
    return clips


def list_of_codes(values: object, config: MossAudioTokenizerConfig) -> list[Tensor]:
    """A list of (num_quantizers, frames) codes -> the same in int64, checked."""
    if not isinstance(values, list | tuple) or not values:
        raise TypeError(
            f"batch_decode takes a list of at least one array of codes, got {type(values).__name__} {_size(values)}"
        )
    clips = []
    for index, value in enumerate(values):
        codes = codes_tensor(value, f"codes {index}", config)
        if codes.dim() != 2 or codes.shape[1] == 0:
            raise ValueError(
                f"codes {index} must be (num_quantizers, frames) with at least 1 frame, got {tuple(codes.shape)}"
            )
        check_code_range(codes, f"codes {index}", config)
        clips.append(codes)
    if len({codes.shape[0] for codes in clips}) > 1:
        raise ValueError(
            f"all clips of a batch need the same num_quantizers, got {sorted({c.shape[0] for c in clips})}"
        )
    return clips


def codes_tensor(values: object, name: str, config: MossAudioTokenizerConfig) -> Tensor:
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(
            values.astype(np.int64) if np.issubdtype(values.dtype, np.unsignedinteger) else values
        )
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch tensor or numpy array, got {type(values).__name__}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {values.dtype}")
    limit = config.quantizer.num_quantizers
    if values.dim() < 2 or not 1 <= values.shape[0] <= limit:
        raise ValueError(f"{name} must have 1 to {limit} quantizers in its first dimension, got {tuple(values.shape)}")
    return values.to(torch.int64)


def check_code_range(codes: Tensor, name: str, config: MossAudioTokenizerConfig) -> None:
    size = config.quantizer.codebook_size
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= size:
        raise ValueError(f"{name} must be in 0..{size - 1}, got values from {low} to {high}")


def mask_lengths(mask: object, shape: tuple[int, int]) -> list[int]:
    """The number of leading true entries in each row, or the whole length if there is no mask."""
    if mask is None:
        return [shape[1]] * shape[0]
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(mask)
    if not isinstance(mask, Tensor):
        raise TypeError(f"padding_mask must be a torch tensor or numpy array, got {type(mask).__name__}")
    if tuple(mask.shape) != shape:
        raise ValueError(f"padding_mask must be {shape}, got {tuple(mask.shape)}")
    valid = mask.to(torch.bool)
    lengths = valid.sum(1)
    if not torch.equal(valid, torch.arange(shape[1], device=valid.device) < lengths[:, None]):
        raise ValueError("padding_mask must be true for the first samples of each clip and false after them (a prefix)")
    if int(lengths.min()) == 0:
        raise ValueError(f"padding_mask hides clip {int(lengths.argmin())} whole; a clip needs at least 1 sample")
    return [int(length) for length in lengths]


def quantizer_count(value: object, limit: int) -> int:
    """How many quantizers to use, all if None. Raises TypeError or ValueError unless it is a whole number in
    1..limit."""
    if value is None:
        return limit
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"num_quantizers must be a whole number, got {value!r}")
    if not 1 <= value <= limit:
        raise ValueError(f"num_quantizers must be in 1..{limit}, got {value}")
    return int(value)


def chunk_frames(chunk_duration: object, config: MossAudioTokenizerConfig) -> int:
    """Frames in a chunk of `chunk_duration` seconds, a whole number from 1. Raises TypeError or ValueError."""
    if isinstance(chunk_duration, bool) or not isinstance(chunk_duration, int | float | np.floating | np.integer):
        raise TypeError(f"chunk_duration must be a number of seconds, got {chunk_duration!r}")
    frames = float(chunk_duration) * config.frame_rate
    if not CHUNK_TOLERANCE < frames < 1e9 or abs(frames - round(frames)) > CHUNK_TOLERANCE * max(1.0, frames):
        seconds = config.downsample_rate / config.sampling_rate
        raise ValueError(
            f"chunk_duration must be a whole number of frames of {seconds:g} s, "
            f"got {chunk_duration} s = {frames:g} frames"
        )
    return round(frames)


def _size(values: object) -> str:
    return f"of {len(values)}" if isinstance(values, list | tuple) else ""
