"""Encoded bytes into a waveform at the model's sample rate and channels, or into a Reject that says why not.

A clip is decoded, mixed and resampled block by block. A clip of up to PART_FRAMES frames stays whole. A longer one
becomes parts, and only a few of them are in memory at any time, however long the clip is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from moss_tok import audio
from pipeline.config import LoudnessConfig, PrepareConfig
from pipeline.items import Clip, ClipEnd, ClipInfo, ClipPart, Prepared, RawClip, Reject
from pipeline.steps.audio_stats import AudioStats, amplitude
from pipeline.steps.clip_decoder import ClipDecoder
from pipeline.steps.clip_signals import NO_SIGNALS, Signals, Values
from pipeline.steps.clip_signals.meter import Meter
from pipeline.steps.segment_decoder import OutsideFile
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
    raw: RawClip,
    config: PrepareConfig,
    target: Target,
    watchdog: Watchdog = NO_WATCHDOG,
    signals: Signals = NO_SIGNALS,
) -> Iterator[Prepared]:
    """`Preparer.prepare` for a single clip and target."""
    for _, item in Preparer(config, (target,), watchdog, signals).prepare(raw):
        yield item


class Preparer:
    """Prepares clips one after the other, each for one or more targets.

    A clip is decoded once, and resampled once to each rate and number of channels, if its samples are few enough to
    keep (see pipeline/steps/clip_decoder.py); else once for each target. What a target gets is the same either way,
    and does not depend on the other targets.
    """

    def __init__(
        self,
        config: PrepareConfig,
        targets: Sequence[Target],
        watchdog: Watchdog = NO_WATCHDOG,
        signals: Signals = NO_SIGNALS,
    ) -> None:
        """Raises what `open_signals` raises."""
        self._config = config
        self._targets = targets
        self._meter = Meter(signals, watchdog)
        self._decoder = ClipDecoder(config.max_channels, watchdog, keep=len(targets) > 1, listener=self._meter)

    def prepare(self, raw: RawClip) -> Iterator[tuple[int, Prepared]]:
        """What the clip becomes for each target, with the target's position.

        For a target it is a Clip, or the ClipParts of a longer one and its ClipEnd, or a Reject instead of these or
        after some parts. The last items, one for each target, follow one another, after the parts for all targets.

        Never raises: whatever is wrong with a clip is in its Reject. A Reject after parts revokes them.
        """
        ends: list[Prepared] = []
        clips: dict[Target, Clip] = {}
        for position, target in enumerate(self._targets):
            longest, form = min(self._config.max_seconds, target.max_seconds), replace(target, max_seconds=math.inf)
            if form in clips and self._decoder.keeps(raw, longest):
                ends.append(clips[form])
                continue
            for item in self._prepare(raw, target, longest):
                if isinstance(item, ClipPart):
                    yield position, item
                    continue
                ends.append(item)
                if isinstance(item, Clip):
                    clips[form] = item
        yield from enumerate(ends)

    def _prepare(self, raw: RawClip, target: Target, longest: float) -> Iterator[Prepared]:
        try:
            start = partial(self._decoder.waveform, raw, longest, target.sample_rate, target.channels)
            yield from _prepare(_Source(target, start), raw, self._config, self._meter)
        except audio.AudioError as error:
            yield _reject(raw, error.reason, str(error))
        except OutsideFile as error:
            yield _reject(raw, "outside_file", str(error))
        except Exception as error:
            # One clip must not end a shard. The reason is counted, so that a defect of our own is noticed.
            message = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode("utf-8")
            yield _reject(raw, "crashed", message)


@dataclass(frozen=True, slots=True)
class _Source:
    """A clip that can be decoded from its beginning as often as needed."""

    target: Target
    waveform: Callable[[], tuple[audio.AudioInfo, Iterator[np.ndarray]]]

    def start(self) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What the clip is, and its waveform in one or more parts of PART_FRAMES frames, the last one shorter."""
        info, pieces = self.waveform()
        return info, self._parts(pieces)

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


def _prepare(source: _Source, raw: RawClip, config: PrepareConfig, meter: Meter) -> Iterator[Prepared]:
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
    clip_info = _describe(raw, info, stats, gain_db, meter.values(raw))
    yield Clip(clip_info, waveform) if whole else ClipEnd(clip_info)


def _gain(parts: Iterator[np.ndarray], loudness: LoudnessConfig, target: Target) -> float:
    """The gain in dB that brings the clip to the wanted level, or as near to it as `max_gain_db` allows."""
    stats = AudioStats(target.samples_per_frame)
    for part in parts:
        stats.add(part)
    return min(max(loudness.target_dbfs - stats.level_dbfs, -loudness.max_gain_db), loudness.max_gain_db)


def _describe(raw: RawClip, info: audio.AudioInfo, stats: AudioStats, gain_db: float, signals: Values) -> ClipInfo:
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
        signals=signals,
        description=raw.description,
    )


def _reject(raw: RawClip, reason: str, message: str) -> Reject:
    return Reject(origin=raw.origin, stage="prepare", reason=reason, message=message)
