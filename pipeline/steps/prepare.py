"""Encoded bytes into a waveform at the model's sample rate and channels, or into a Reject that says why not.

A clip is decoded, mixed and resampled block by block. A clip of up to PART_FRAMES frames stays whole. A longer one
becomes parts, and only a few of them are in memory at any time, however long the clip is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from moss_tok import audio
from pipeline.config import LoudnessConfig, PrepareConfig
from pipeline.items import Clip, ClipEnd, ClipInfo, ClipPart, Prepared, RawClip, Reject
from pipeline.steps.audio_stats import AudioStats, amplitude
from pipeline.steps.segment_decoder import OutsideFile, SegmentDecoder
from pipeline.steps.watchdog import NO_WATCHDOG, Watchdog

PART_FRAMES = 2000  # whole attention blocks (125): 160 s at 12.5 frames per second, 15 MB of mono at 24 kHz


@dataclass(frozen=True, slots=True)
class Target:
    """The form of waveform that the model takes."""

    sample_rate: int
    """Sample rate in Hz."""
    channels: int
    samples_per_frame: int
    """Samples per channel in one frame of codes."""
    max_seconds: float = math.inf
    """Longer clips are rejected: a codec that cannot encode a clip in parts has it in memory at once."""

    def frames(self, num_samples: int) -> int:
        """Frames of a clip: the last one counts if it holds at least one sample."""
        return -(-num_samples // self.samples_per_frame)


def prepare_clip(
    raw: RawClip, config: PrepareConfig, target: Target, watchdog: Watchdog = NO_WATCHDOG
) -> Iterator[Prepared]:
    """`Preparer.prepare` for a single clip."""
    return Preparer(config, target, watchdog).prepare(raw)


class Preparer:
    """Prepares clips one after the other. Clips that are parts of one file and follow one another are decoded in one
    pass.

    `watchdog` runs while a clip is decoded, and is restarted with every block.
    """

    def __init__(self, config: PrepareConfig, target: Target, watchdog: Watchdog = NO_WATCHDOG) -> None:
        self._config = config
        self._target = target
        self._max_seconds = min(config.max_seconds, target.max_seconds)
        self._watchdog = watchdog
        self._file: SegmentDecoder | None = None
        """The file of the latest clip that was a part of a file."""

    def prepare(self, raw: RawClip) -> Iterator[Prepared]:
        """A Clip, or the ClipParts of a longer one and its ClipEnd, or a Reject instead of these or after some parts.

        Never raises: whatever is wrong with a clip is in its Reject. A Reject after parts revokes them.
        """
        try:
            source = _Source(raw, self._target, lambda: self._decode(raw))
            yield from _prepare(source, raw, self._config)
        except audio.AudioError as error:
            yield _reject(raw, error.reason, str(error))
        except OutsideFile as error:
            yield _reject(raw, "outside_file", str(error))
        except Exception as error:
            # One clip must not end a shard. The reason is counted, so that a defect of our own is noticed.
            message = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode("utf-8")
            yield _reject(raw, "crashed", message)

    def _decode(self, raw: RawClip) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What the clip is, and its samples from its beginning, as its source has them."""
        self._watchdog.restart()
        config, segment = self._config, raw.origin.segment
        if segment is None:
            limits = audio.AudioLimits(max_seconds=self._max_seconds, max_channels=config.max_channels)
            info, blocks = audio.decode_blocks(raw.data, limits, name=raw.name)
            return info, self._watched(blocks)
        info, blocks = self._open(raw).read(segment)
        return info, _not_longer(blocks, info.sample_rate, self._max_seconds)

    def _open(self, raw: RawClip) -> SegmentDecoder:
        """The file that the clip is a part of; it may be open already. Raises AudioError if it cannot be opened."""
        if self._file is None or self._file.data is not raw.data:
            limits = audio.AudioLimits(max_seconds=math.inf, max_channels=self._config.max_channels)
            self._file = SegmentDecoder(raw.data, raw.name, limits, self._watchdog)
        return self._file

    def _watched(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._watchdog.restart()
            yield block


def _not_longer(blocks: Iterator[np.ndarray], sample_rate: int, max_seconds: float) -> Iterator[np.ndarray]:
    """The blocks of a part of a file. Raises AudioError if the part is too long, whatever the length of the file."""
    count = 0
    for block in blocks:
        count += block.shape[1]
        if count > max_seconds * sample_rate:
            raise audio.AudioError(
                "too_long", f"the part is longer than {max_seconds:g} s: prepare.max_seconds or model.max_seconds"
            )
        yield block


@dataclass(frozen=True, slots=True)
class _Source:
    """A clip that can be decoded from its beginning as often as needed."""

    raw: RawClip
    target: Target
    decode: Callable[[], tuple[audio.AudioInfo, Iterator[np.ndarray]]]

    def start(self) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What the clip is, and its waveform in one or more parts of PART_FRAMES frames, the last one shorter."""
        info, blocks = self.decode()
        return info, self._parts(self._resampled(blocks, info.sample_rate))

    def _resampled(self, blocks: Iterator[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        resampler = audio.StreamingResampler(sample_rate, self.target.sample_rate, self.target.channels)
        for block in blocks:
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


def _prepare(source: _Source, raw: RawClip, config: PrepareConfig) -> Iterator[Prepared]:
    info, parts = source.start()
    head = list(itertools.islice(parts, 2))
    whole = len(head) == 1
    gain_db = 0.0
    if config.loudness is not None:
        gain_db = _gain(itertools.chain(head, parts), config.loudness, source.target)
        if not whole:  # its level is known only at its end, and its parts are not kept: decode it again
            (info, parts), head = source.start(), []
    stats = AudioStats(source.target.samples_per_frame)
    for part in itertools.chain(head, parts):
        waveform = part * amplitude(gain_db) if gain_db else part
        if not whole:
            yield ClipPart(origin=raw.origin, start=stats.num_samples, waveform=waveform)
        stats.add(waveform)
    seconds = stats.num_samples / source.target.sample_rate
    if seconds < config.min_seconds:
        yield _reject(raw, "too_short", f"{seconds:.3f} s; prepare.min_seconds is {config.min_seconds}")
        return
    clip_info = _describe(raw, info, stats, gain_db)
    yield Clip(clip_info, waveform) if whole else ClipEnd(clip_info)


def _gain(parts: Iterator[np.ndarray], loudness: LoudnessConfig, target: Target) -> float:
    """The gain in dB that brings the clip to the wanted level, or as near to it as `max_gain_db` allows."""
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
