"""Parts of one file as samples at the file's own rate, decoded once from front to back.

No decoder is asked to seek: in MP3 and other formats the samples after a seek differ from those of a decoder that has
read up to there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

import numpy as np

from moss_tok import audio
from moss_tok.audio import AudioError, AudioInfo, AudioLimits
from pipeline.items import Segment, SizedPath
from pipeline.steps.watchdog import Watchdog

WINDOW_BYTES = 64 * 2**20
"""Limit of the waveform that is kept for parts that overlap: 6 minutes of 44.1 kHz mono. For a part that begins before
what is kept, the file is decoded from its beginning again."""


class OutsideFile(ValueError):
    """The file has no such part. The message says what it has."""


class SegmentDecoder:
    """The parts of one file. In the order of their starts they cost one pass; any order gives the same samples."""

    def __init__(self, data: bytes | SizedPath, name: str, limits: AudioLimits, watchdog: Watchdog) -> None:
        self.data = data
        self._name = name
        self._limits = limits
        self._watchdog = watchdog
        self._end: int | None = None
        """Number of samples at which decoding ended; None before it has."""
        self._damage: AudioError | None = None
        """Why decoding ended there, if it was not the end of the file."""
        self._info: AudioInfo | None = None

    def _open(self) -> AudioInfo:
        """Begin to decode. A file that cannot be opened is not tried again, because for some it takes long to find
        out."""
        if self._damage is not None and self._info is None:
            raise self._damage
        self._watchdog.restart()
        try:
            self._info, self._blocks = audio.decode_blocks(self.data, self._limits, name=self._name)
        except AudioError as error:
            self._damage = error
            raise
        self._position = 0
        """Samples that have been decoded so far."""
        self._window: deque[tuple[int, np.ndarray]] = deque()
        """The latest blocks, each with the position of its first sample."""
        return self._info

    def read(self, segment: Segment) -> tuple[AudioInfo, Iterator[np.ndarray]]:
        """What the file is, and the samples of the part: float32 (channels, n), at the file's rate.

        Raises OutsideFile if the file has no such part, AudioError if it is damaged before the part ends; the iterator
        does so too.
        """
        info = self._info or self._open()
        if segment.file_channels not in (None, info.channels):
            raise OutsideFile(f"input.split_channels is {segment.file_channels}, and the file has {info.channels}")
        last = max(segment.channels or (0,))
        if last >= info.channels:
            raise OutsideFile(f"channel {last} is wanted, counted from 0, and the file has {info.channels}")
        first, stop = segment.samples(info.sample_rate)
        if stop is not None and stop <= first:
            raise OutsideFile(f"{_name(segment)} holds no sample at {info.sample_rate} Hz")
        return info, self._samples(segment, info, first, stop)

    def _samples(self, segment: Segment, info: AudioInfo, first: int, stop: int | None) -> Iterator[np.ndarray]:
        needed = first + 1 if stop is None else stop
        if self._end is not None and not self._reaches(self._end, segment, info, needed):
            raise self._failure(segment, info)
        if first < (self._window[0][0] if self._window else self._position):
            self._open()
        while self._window and _end(self._window[0]) <= first:
            self._window.popleft()
        known = [*self._window]
        given = first
        while stop is None or given < stop:
            block = known.pop(0) if known else self._decode(first)
            if block is None:
                if self._damage is None and self._reaches(self._position, segment, info, needed):
                    return
                raise self._failure(segment, info)
            given += yield from _cut(block, first, stop, segment.channels)

    def _decode(self, first: int) -> tuple[int, np.ndarray] | None:
        """The next block, or None where decoding ends. It is kept in the window unless all of it lies before
        `first`."""
        self._watchdog.restart()
        try:
            waveform = next(self._blocks, None)
        except AudioError as error:
            waveform, self._damage = None, error
        if waveform is None:
            self._end = self._position
            return None
        block = (self._position, waveform)
        self._position = _end(block)
        if self._position > first:
            self._window.append(block)
        while sum(held.nbytes for _, held in self._window) > WINDOW_BYTES:
            self._window.popleft()
        return block

    def _reaches(self, end: int, segment: Segment, info: AudioInfo, needed: int) -> bool:
        """Whether the part lies in a file of `end` samples. A part that exceeds it by rounding alone is cut by that
        sample."""
        rounded_up = self._damage is None and end == needed - 1 and segment.ends_at(info.sample_rate) == end
        return end >= needed or rounded_up

    def _failure(self, segment: Segment, info: AudioInfo) -> Exception:
        if self._damage is not None:
            return self._damage
        seconds = (self._end or 0) / info.sample_rate
        return OutsideFile(f"{_name(segment)} is not all in the file, which is {seconds:.6f} s long")


def _end(block: tuple[int, np.ndarray]) -> int:
    return block[0] + int(block[1].shape[1])


def _cut(
    block: tuple[int, np.ndarray], first: int, stop: int | None, channels: tuple[int, ...] | None
) -> Generator[np.ndarray, None, int]:
    """Pass on what the block holds of [first, stop). Returns the number of samples passed on."""
    start, waveform = block
    part = waveform[:, max(0, first - start) : None if stop is None else max(0, stop - start)]
    if part.shape[1]:
        yield part if channels is None else part[list(channels)]
    return int(part.shape[1])


def _name(segment: Segment) -> str:
    return f"the part {segment.fragment}"
