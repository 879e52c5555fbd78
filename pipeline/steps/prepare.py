"""Encoded bytes into a waveform at the model's rate and channels, or a Reject that says why not.

A clip is decoded, mixed and resampled block by block. One of up to PART_FRAMES frames travels whole; a longer one in
parts, of which only a few are in memory at any time, whatever its length.
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
from pipeline.steps.audio_stats import AudioStats
from pipeline.steps.segment_decoder import OutsideFile, SegmentDecoder
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
    """`Preparer.prepare` of one clip alone."""
    return Preparer(config, target, watchdog).prepare(raw)


class Preparer:
    """Prepares clips one after the other; those that are parts of one file and follow one another are decoded once.

    `watchdog` is running while a clip is decoded, and sees a sign of life with every block.
    """

    def __init__(self, config: PrepareConfig, target: Target, watchdog: Watchdog = NO_WATCHDOG) -> None:
        self._config = config
        self._target = target
        self._watchdog = watchdog
        self._file: SegmentDecoder | None = None
        """The file of the latest clip that was a part of one."""

    def prepare(self, raw: RawClip) -> Iterator[Prepared]:
        """A Clip, or the ClipParts of a longer one and its ClipEnd; a Reject, in place of either or after parts.

        Never raises: whatever is wrong with a clip is its Reject, and one that comes after parts takes them back.
        """
        try:
            source = _Source(raw, self._target, lambda: self._decode(raw))
            yield from _prepare(source, raw, self._config)
        except audio.AudioError as error:
            yield _reject(raw, error.reason, str(error))
        except OutsideFile as error:
            yield _reject(raw, "outside_file", str(error))
        except Exception as error:
            # One clip must not end a shard; the reason is counted, so that a defect of ours is seen and not swallowed.
            message = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode("utf-8")
            yield _reject(raw, "crashed", message)

    def _decode(self, raw: RawClip) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What the clip is, and its samples from its beginning as its source has them."""
        self._watchdog.restart()
        config, segment = self._config, raw.origin.segment
        if segment is None:
            limits = audio.AudioLimits(max_seconds=config.max_seconds, max_channels=config.max_channels)
            info, blocks = audio.decode_blocks(raw.data, limits, name=raw.name)
            return info, self._watched(blocks)
        info, blocks = self._open(raw).read(segment)
        return info, _not_longer(blocks, info.sample_rate, config.max_seconds)

    def _open(self, raw: RawClip) -> SegmentDecoder:
        """The file that the clip is a part of, which may be open. Raises AudioError for one that cannot be opened."""
        if self._file is None or self._file.data is not raw.data:
            limits = audio.AudioLimits(max_seconds=math.inf, max_channels=self._config.max_channels)
            self._file = SegmentDecoder(raw.data, raw.name, limits, self._watchdog)
        return self._file

    def _watched(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._watchdog.restart()
            yield block


def _not_longer(blocks: Iterator[np.ndarray], sample_rate: int, max_seconds: float) -> Iterator[np.ndarray]:
    """The blocks of a part of a file. Raises AudioError where the part, whatever the file, is too long."""
    count = 0
    for block in blocks:
        count += block.shape[1]
        if count > max_seconds * sample_rate:
            raise audio.AudioError("too_long", f"the part is longer than {max_seconds:g} s: prepare.max_seconds")
        yield block


@dataclass(frozen=True, slots=True)
class _Source:
    """A clip that can be decoded from its beginning as often as needed."""

    raw: RawClip
    target: Target
    decode: Callable[[], tuple[audio.AudioInfo, Iterator[np.ndarray]]]

    def start(self) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What it is, and its waveform in parts of PART_FRAMES frames, the last one shorter; at least one."""
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
        if not whole:  # the level is that of the whole clip, which is not kept: it is decoded again
            (info, parts), head = source.start(), []
    stats = AudioStats(source.target.samples_per_frame)
    for part in itertools.chain(head, parts):
        waveform = part * np.float32(10 ** (gain_db / 20)) if gain_db else part
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
