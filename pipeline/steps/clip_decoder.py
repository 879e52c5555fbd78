"""From a clip's bytes to its samples at a wanted rate, decoded and resampled once where several codecs want them.

What is kept is passed on only if decoding again would give the same: all of the clip came, and it is not longer than
allowed. (A clip that declares more samples than come is an error at its end, so the declared length need not be asked.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from moss_tok import audio
from pipeline.items import RawClip
from pipeline.steps.segment_decoder import SegmentDecoder
from pipeline.steps.watchdog import Watchdog

KEPT_BYTES = 64 * 2**20
"""Limit of the samples that are kept, as decoded, and again at each rate: 6 minutes of 44.1 kHz mono."""


class Listener(Protocol):
    """What hears the samples of clips as their sources have them."""

    def listen(self, raw: RawClip, info: audio.AudioInfo, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on the blocks of a clip, float32 (channels, n) at the rate of its source."""


class ClipDecoder:
    """Decodes clips one after the other. Clips that are parts of one file and follow one another are decoded in one
    pass.

    `watchdog` runs while a clip is decoded, and is restarted with every block. With `keep`, the samples of the latest
    clip are kept.
    """

    def __init__(self, max_channels: int, watchdog: Watchdog, keep: bool, listener: Listener) -> None:
        """`listener` hears every clip that is decoded."""
        self._max_channels = max_channels
        self._listener = listener
        self._watchdog = watchdog
        self._keep = keep
        self._file: SegmentDecoder | None = None
        """The file of the latest clip that was a part of a file."""
        self._raw: RawClip | None = None
        """The latest clip, of which `_decoded` and `_resampled` are."""
        self._decoded: tuple[audio.AudioInfo, _Kept] | None = None
        self._resampled: dict[tuple[int, int], _Kept] = {}
        """By sample rate and number of channels."""

    def waveform(
        self, raw: RawClip, max_seconds: float, sample_rate: int, channels: int
    ) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What the clip is, and its samples from its beginning: float32 (channels, n) at `sample_rate` Hz.

        Raises AudioError if it is longer than `max_seconds` or cannot be decoded, OutsideFile if it is a part that its
        file does not have; the iterator does so too.
        """
        self._watchdog.restart()
        if self._keep and raw is not self._raw:
            self._raw, self._decoded, self._resampled = raw, None, {}
        form = (sample_rate, channels)
        if self._decoded is not None and self.keeps(raw, max_seconds):
            info, decoded = self._decoded
            if form in self._resampled and self._resampled[form].is_whole():
                return info, iter(self._resampled[form])
            blocks = iter(decoded)
        else:
            info, blocks = self._decode(raw, max_seconds)
            if not self._keep or self.keeps(raw, math.inf):  # what is kept is too long here, and not for others
                return info, _resample(blocks, info.sample_rate, sample_rate, channels)
            kept = _Kept()
            self._decoded, blocks = (info, kept), kept.pass_on(blocks)
        kept = self._resampled[form] = _Kept()
        return info, kept.pass_on(_resample(blocks, info.sample_rate, sample_rate, channels))

    def keeps(self, raw: RawClip, max_seconds: float) -> bool:
        """Whether the clip was decoded, is kept, and is not longer than `max_seconds`."""
        if raw is not self._raw or self._decoded is None:
            return False
        info, kept = self._decoded
        return kept.is_whole(max_seconds * info.sample_rate)

    def _decode(self, raw: RawClip, max_seconds: float) -> tuple[audio.AudioInfo, Iterator[np.ndarray]]:
        """What the clip is, and its samples as its source has them."""
        segment = raw.origin.segment
        if segment is None:
            limits = audio.AudioLimits(max_seconds=max_seconds, max_channels=self._max_channels)
            info, blocks = audio.decode_blocks(raw.data, limits, name=raw.name)
            return info, self._listener.listen(raw, info, self._watched(blocks))
        info, blocks = self._open(raw).read(segment)
        return info, self._listener.listen(raw, info, _not_longer(blocks, info.sample_rate, max_seconds))

    def _open(self, raw: RawClip) -> SegmentDecoder:
        """The file that the clip is a part of; it may be open already. Raises AudioError if it cannot be opened."""
        if self._file is None or self._file.data is not raw.data:
            limits = audio.AudioLimits(max_seconds=math.inf, max_channels=self._max_channels)
            self._file = SegmentDecoder(raw.data, raw.name, limits, self._watchdog)
        return self._file

    def _watched(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._watchdog.restart()
            yield block


class _Kept:
    """Blocks of samples that were passed on once, and can be again if all of them were and they are not too many."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._bytes = 0
        self._num_samples = 0
        self._ended = False

    def pass_on(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._bytes += block.nbytes
            self._num_samples += block.shape[1]
            if self._bytes > KEPT_BYTES:
                self._blocks.clear()
            else:
                self._blocks.append(block)
            yield block
        self._ended = True

    def is_whole(self, max_samples: float = math.inf) -> bool:
        """Whether all blocks are here, and are no more than so many samples per channel."""
        return self._ended and self._bytes <= KEPT_BYTES and self._num_samples <= max_samples

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._blocks)


def _resample(blocks: Iterator[np.ndarray], source_rate: int, sample_rate: int, channels: int) -> Iterator[np.ndarray]:
    resampler = audio.StreamingResampler(source_rate, sample_rate, channels)
    for block in blocks:
        yield resampler.push(audio.to_channels(block, channels))
    yield resampler.flush()


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
