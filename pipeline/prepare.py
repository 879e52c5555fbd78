"""Encoded bytes into a waveform at the model's rate and channels, or a Reject that says why not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from moss_tok import audio
from pipeline.config import PrepareConfig
from pipeline.items import Clip, ClipInfo, RawClip, Reject

CLIPPING_LEVEL = 0.999
SILENCE_LEVEL = 0.001  # -60 dBFS


@dataclass(frozen=True, slots=True)
class Target:
    """What the model takes."""

    sample_rate: int
    """Hz."""
    channels: int
    samples_per_frame: int
    """Samples per channel in one frame of codes."""

    def frames(self, num_samples: int) -> int:
        """Frames of a clip: the last one counts if it holds at least one sample."""
        return -(-num_samples // self.samples_per_frame)


def prepare_clip(raw: RawClip, config: PrepareConfig, target: Target) -> Clip | Reject:
    """Decode, mix to the target's channels, resample. Never raises: whatever is wrong with a clip is its Reject."""
    limits = audio.AudioLimits(max_seconds=config.max_seconds, max_channels=config.max_channels)
    try:
        info, decoded = audio.decode(raw.data, limits, name=raw.name)
        seconds = decoded.shape[1] / info.sample_rate
        if seconds < config.min_seconds:
            return _reject(raw, "too_short", f"{seconds:.3f} s; prepare.min_seconds is {config.min_seconds}")
        mixed = audio.to_channels(decoded, target.channels)
        waveform = audio.resample(mixed, info.sample_rate, target.sample_rate)
    except audio.AudioError as error:
        return _reject(raw, error.reason, str(error))
    except Exception as error:
        # One clip must not end a shard; the reason is counted, so that a defect of ours is seen and not swallowed.
        message = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode("utf-8")
        return _reject(raw, "crashed", message)
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    magnitude = np.abs(waveform)
    return Clip(
        info=ClipInfo(
            origin=raw.origin,
            num_samples=int(waveform.shape[1]),
            source_format=info.format,
            source_codec=info.codec,
            source_sample_rate=info.sample_rate,
            source_channels=info.channels,
            peak=float(magnitude.max()),
            rms=float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))),
            clipping=float(np.mean(magnitude >= CLIPPING_LEVEL)),
            silence=float(np.mean(magnitude < SILENCE_LEVEL)),
            audio_xxh3=xxhash.xxh3_128_hexdigest(waveform.T.astype("<f4", copy=False).tobytes()),
            description=raw.description,
        ),
        waveform=waveform,
    )


def _reject(raw: RawClip, reason: str, message: str) -> Reject:
    return Reject(origin=raw.origin, stage="prepare", reason=reason, message=message)
