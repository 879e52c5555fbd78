"""Encoded bytes into a waveform at the model's rate and channels, or a Reject that says why not.

A clip is decoded, mixed and resampled block by block. One of up to PART_FRAMES frames travels whole; a longer one in
parts, of which only a few are in memory at any time, whatever its length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moss_tok import audio
from pipeline.config import LoudnessConfig, PrepareConfig
from pipeline.items import Clip, ClipEnd, ClipInfo, ClipPart, Prepared, RawClip, Reject
from pipeline.steps.audio_stats import AudioStats
from pipeline.steps.watchdog import NO_WATCHDOG, Watchdog

PART_FRAMES = 2000  # of the model, whole attention blocks (125): 160 s at 12.5 a second, 15 MB of mono at 24 kHz


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


def prepare_clip(
    raw: RawClip, config: PrepareConfig, target: Target, watchdog: Watchdog = NO_WATCHDOG
) -> Iterator[Prepared]:
    """A Clip, or the ClipParts of a longer one and its ClipEnd; a Reject, in place of either or after parts.

    Never raises: whatever is wrong with a clip is its Reject, and one that comes after parts takes them back.
    `watchdog` is running while the clip is decoded, and sees a sign of life with every block.
    """
    limits = audio.AudioLimits(max_seconds=config.max_seconds, max_channels=config.max_channels)
    try:
        yield from _prepare(_Decoding(raw, limits, target, watchdog), raw, config)
    except audio.AudioError as error:
        yield _reject(raw, error.reason, str(error))
    except Exception as error:
        # One clip must not end a shard; the reason is counted, so that a defect of ours is seen and not swallowed.
        message = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode("utf-8")
        yield _reject(raw, "crashed", message)


@dataclass(frozen=True, slots=True)
class _Decoding:
    """A clip that can be decoded from its beginning as often as needed."""

    raw: RawClip
    limits: audio.AudioLimits
    target: Target
    watchdog: Watchdog

    def start(self) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What it is, and its waveform in parts of PART_FRAMES frames, the last one shorter; at least one."""
        self.watchdog.restart()
        info, blocks = audio.decode_blocks(self.raw.data, self.limits, name=self.raw.name)
        return info, self._parts(self._resampled(blocks, info.sample_rate))

    def _resampled(self, blocks: Iterator[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        resampler = audio.StreamingResampler(sample_rate, self.target.sample_rate, self.target.channels)
        for block in blocks:
            self.watchdog.restart()
            yield resampler.push(audio.to_channels(block, self.target.channels))
        yield resampler.flush()

    def _parts(self, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        size = PART_FRAMES * self.target.samples_per_frame
        held: list[np.ndarray] = []
        count = 0
        for piece in pieces:
            held.append(piece)
            count += piece.shape[1]
            while count >= size:
                joined = np.concatenate(held, axis=1)
                yield np.ascontiguousarray(joined[:, :size])
                held, count = [joined[:, size:]], count - size
        if count:
            yield np.concatenate(held, axis=1)


def _prepare(decoding: _Decoding, raw: RawClip, config: PrepareConfig) -> Iterator[Prepared]:
    info, parts = decoding.start()
    head = list(itertools.islice(parts, 2))
    whole = len(head) == 1
    gain_db = 0.0
    if config.loudness is not None:
        gain_db = _gain(itertools.chain(head, parts), config.loudness, decoding.target)
        if not whole:  # the level is that of the whole clip, which is not kept: it is decoded again
            (info, parts), head = decoding.start(), []
    stats = AudioStats(decoding.target.samples_per_frame)
    for part in itertools.chain(head, parts):
        waveform = part * np.float32(10 ** (gain_db / 20)) if gain_db else part
        if not whole:
            yield ClipPart(origin=raw.origin, start=stats.num_samples, waveform=waveform)
        stats.add(waveform)
    seconds = stats.num_samples / decoding.target.sample_rate
    if seconds < config.min_seconds:
        yield _reject(raw, "too_short", f"{seconds:.3f} s; prepare.min_seconds is {config.min_seconds}")
        return
    clip_info = _describe(raw, info, stats, gain_db)
    yield Clip(clip_info, waveform) if whole else ClipEnd(clip_info)


def _gain(parts: Iterator[np.ndarray], loudness: LoudnessConfig, target: Target) -> float:
    """Gain in dB that brings the clip to the wanted level, as far as it may be changed."""
    stats = AudioStats(target.samples_per_frame)
    for part in parts:
        stats.add(part)
    return min(max(loudness.target_dbfs - stats.level_dbfs, -loudness.max_gain_db), loudness.max_gain_db)


def _describe(raw: RawClip, info: audio.AudioInfo, stats: AudioStats, gain_db: float) -> ClipInfo:
    return ClipInfo(
        origin=raw.origin,
        num_samples=stats.num_samples,
        source_format=info.format,
        source_codec=info.codec,
        source_sample_rate=info.sample_rate,
        source_channels=info.channels,
        peak=stats.peak,
        rms=stats.rms,
        clipping=stats.clipping,
        silence=stats.silence,
        gain_db=gain_db,
        audio_xxh3=stats.xxh3,
        description=raw.description,
    )


def _reject(raw: RawClip, reason: str, message: str) -> Reject:
    return Reject(origin=raw.origin, stage="prepare", reason=reason, message=message)
