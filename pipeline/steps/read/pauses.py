"""Long recordings as clips of a wanted length, cut at pauses; each clip is a part of its source.

A recording is decoded twice: here, to find its pauses, and where its clips are prepared. Nothing of it is left out:
each clip begins where the one before ends, in the middle of a pause.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moss_tok.audio import AudioError, AudioInfo
from pipeline.items import RawClip, Reject, Segment
from pipeline.signal_config import SplitAtPausesConfig, VoiceActivityConfig
from pipeline.steps.clip_decoder import ClipDecoder
from pipeline.steps.clip_signals.voice_activity import MODEL, SAMPLE_RATE, WINDOW, VoiceActivity
from pipeline.steps.segment_decoder import OutsideFile
from pipeline.steps.segments import without_times
from pipeline.steps.watchdog import NO_WATCHDOG, Watchdog

logger = logging.getLogger(__name__)

_MODEL = replace(MODEL, key="input.split_at_pauses")
_ANY_CHANNELS = 2**16  # prepare.max_channels is about the clips
CUT_IN_SPEECH = "cut_in_speech"
"""In the metadata of a clip that ends where there is no pause, since there was none within reach."""


def describe_split(config: SplitAtPausesConfig | None) -> dict[str, Any]:
    """What recordings are cut by, for the record of a run. Raises MissingPackage."""
    return {} if config is None else {**config.model_dump(), **_MODEL.describe()}


class Splitter:
    """Cuts recordings, one after the other; without a configuration it leaves each as it is."""

    packages = VoiceActivity.packages

    def __init__(self, config: SplitAtPausesConfig | None, watchdog: Watchdog = NO_WATCHDOG) -> None:
        """Raises MissingPackage."""
        self.config = config
        self._watchdog = watchdog
        self._length = _Length()
        self._decoder = ClipDecoder(_ANY_CHANNELS, watchdog, keep=False, listener=self._length)
        if config is not None:
            made_by = {**VoiceActivity.describe(VoiceActivityConfig(threshold=config.threshold)), **_MODEL.describe()}
            self._voice_activity = VoiceActivity(made_by)

    def split(self, raw: RawClip | Reject) -> Sequence[RawClip | Reject]:
        """The clips of a recording, one or more, all with its index. One that is not longer than max_seconds, or that
        cannot be decoded, stays as it is: preparing it says why."""
        if self.config is None or isinstance(raw, Reject):
            return [raw]
        try:
            return self._split(raw, self.config) or [raw]
        except (AudioError, OutsideFile):
            return [raw]
        except Exception as error:
            logger.warning("%s: not cut at pauses: %s: %s", raw.origin.key, type(error).__name__, error)
            return [raw]
        finally:
            self._watchdog.stop()

    def _split(self, raw: RawClip, config: SplitAtPausesConfig) -> list[RawClip]:
        info, blocks = self._decoder.waveform(raw, math.inf, SAMPLE_RATE, 1)
        if (head := _more_than(config.max_seconds, blocks)) is None:
            return []
        detector = self._voice_activity.start(SAMPLE_RATE)
        for block in itertools.chain(head, blocks):
            self._watchdog.restart()
            detector.add(block[0])
            self._watchdog.restart()
        speech = detector.speech()
        cuts = cut_points(speech, detector.num_samples, detector.probabilities, config)
        times = [cut * info.sample_rate / SAMPLE_RATE for cut, _ in cuts]
        borders = [0, *map(round, times), self._length.num_samples]  # in samples of the source
        in_speech = [*(in_speech for _, in_speech in cuts), False]
        segments = [_part(raw.origin.segment, info.sample_rate, *border) for border in itertools.pairwise(borders)]
        parts = zip(segments, in_speech, strict=True)
        return [_clip(raw, number, segment, cut) for number, (segment, cut) in enumerate(parts)]


def split_each(items: Iterable[RawClip | Reject], splitter: Splitter) -> Iterator[RawClip | Reject]:
    """The clips of all recordings, numbered in their order."""
    more = 0
    for item in items:
        parts = splitter.split(item)
        yield from number_parts(parts, item.origin.index + more)
        more += len(parts) - 1


def number_parts(parts: Sequence[RawClip | Reject], first: int) -> Iterator[RawClip | Reject]:
    """The clips of one recording, of which the first has this position in the shard."""
    for number, part in enumerate(parts):
        yield replace(part, origin=replace(part.origin, index=first + number))


def cut_points(
    speech: Sequence[tuple[int, int]], num_samples: int, probabilities: np.ndarray, config: SplitAtPausesConfig
) -> list[tuple[int, bool]]:
    """Where to cut a recording in samples at SAMPLE_RATE, each with whether that is within speech.

    Of all pauses that leave a clip of an allowed length, the longest is cut in the middle, as far as the length allows.
    Without one, the cut is in the window that is the least likely to be speech by `probabilities`, the last of equal
    ones. Every clip has min_seconds to max_seconds, the last one included.
    """
    shortest, longest = round(config.min_seconds * SAMPLE_RATE), round(config.max_seconds * SAMPLE_RATE)
    edges = [0, *itertools.chain.from_iterable(speech), num_samples]
    pauses = deque((start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop)
    cuts: list[tuple[int, bool]] = []
    begin = 0
    while num_samples - begin > longest:
        first, last = begin + shortest, min(begin + longest, num_samples - shortest)
        while pauses and pauses[0][1] <= first:
            pauses.popleft()
        longest_pause, cut = 0, last
        for start, stop in pauses:
            if start >= last:
                break
            if (length := min(stop, last) - max(start, first)) > longest_pause:
                longest_pause, cut = length, min(max((max(start, begin) + stop) // 2, first), last)
        if not longest_pause:
            windows = np.arange(last // WINDOW - 1, first // WINDOW, -1)
            least = windows[np.argmin(probabilities[windows])] if windows.size else None
            cut = last if least is None else int(least) * WINDOW + WINDOW // 2
        cuts.append((cut, not longest_pause))
        begin = cut
    return cuts


def _more_than(seconds: float, blocks: Iterator[np.ndarray]) -> list[np.ndarray] | None:
    """The first blocks, once they are longer than that; None for a recording that is not."""
    head: list[np.ndarray] = []
    count = 0
    for block in blocks:
        head.append(block)
        count += block.shape[1]
        if count > seconds * SAMPLE_RATE:
            return head
    return None


def _part(whole: Segment | None, sample_rate: int, first: int, stop: int) -> Segment:
    """The samples from `first` to `stop` of a recording, which may be a part of its file itself."""
    whole = whole or Segment(start=0.0)
    begin, _ = whole.samples(sample_rate)
    return replace(whole, start=(begin + first) / sample_rate, stop=(begin + stop) / sample_rate, duration=None)


def _clip(raw: RawClip, number: int, segment: Segment, in_speech: bool) -> RawClip:
    """The transcript and the times of words are those of the whole recording, so no part has them."""
    metadata = without_times(raw.description.metadata) | ({CUT_IN_SPEECH: True} if in_speech else {})
    return replace(
        raw,
        origin=replace(raw.origin, key=_key(raw, segment), segment=segment),
        description=replace(raw.description, text=None, metadata=metadata),
        shares_data=raw.shares_data or number > 0,
    )


def _key(raw: RawClip, segment: Segment) -> str:
    """The recording's key with the part's times, in place of its own if it is a part, and before the channel."""
    key, whole, channel = raw.origin.key, raw.origin.segment, ""
    if whole is not None:
        if whole.file_channels is not None:
            key, _, number = key.rpartition("channel=")
            key, channel = key[:-1], f"&channel={number}"
        key = key.removesuffix(f"#{whole.fragment}")
    return f"{key}#{segment.fragment}{channel}"


class _Length:
    """Counts the samples of the latest clip as its source has them."""

    num_samples = 0

    def listen(self, raw: RawClip, info: AudioInfo, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        self.num_samples = 0
        for block in blocks:
            self.num_samples += block.shape[1]
            yield block
