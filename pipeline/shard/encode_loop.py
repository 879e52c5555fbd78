"""The loop that keeps the encoder busy: one thread, batches across all shards that are open in this process."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipeline.items import Clip, ClipInfo, CodedClip
from pipeline.steps.batch import POOL_BATCHES, Batcher
from pipeline.steps.encode import CodeStream, Encoder, Launched

Deliver = Callable[["CodedClip | BaseException", float], None]
"""Takes the codes of a clip, or why there are none, and the encoder's seconds for it."""


@dataclass(frozen=True, slots=True)
class _Request:
    clip: Clip
    frames: int
    deliver: Deliver


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch in the encoder."""

    requests: list[_Request]
    launched: Launched
    started: float


class LongClip:
    """A clip that comes to the loop in parts; they are encoded one at a time, between the batches of short clips."""

    def __init__(self, loop: EncodeLoop, codes: CodeStream, deliver: Deliver, rank: int) -> None:
        self._loop = loop
        self.codes = codes
        self.deliver = deliver
        self.rank = rank
        self.parts: deque[tuple[np.ndarray, int]] = deque()
        self.info: ClipInfo | None = None
        """Known once the last part is here."""
        self.seconds = 0.0

    def push(self, waveform: np.ndarray, frames: int) -> None:
        """Hand the next part over. Blocks while enough is waiting."""
        self._loop.push(self, waveform, frames)

    def end(self, info: ClipInfo) -> None:
        """The clip is sound and all here: its codes are delivered once they are."""
        self._loop.end(self, info)

    def drop(self) -> None:
        """Forget the clip: nothing of it is delivered."""
        self._loop.drop(self)


class EncodeLoop:
    """Clips in from many threads, codes out through their callbacks.

    It never waits for a fuller batch: while one is encoded the next fills, and whatever has come by then is taken. The
    next is launched before the last one is waited for, so that a GPU goes from one to the other.
    `submit` and `LongClip.push` block while 2 * POOL_BATCHES * max_frames frames or more wait, which is what slows the
    readers down to the encoder's speed and bounds the waveforms that are in memory here. Half as much again is kept for
    the oldest of the shards that are being read, so that it is done, and the next one opened, before the others are.
    """

    def __init__(self, encoder: Encoder, max_frames: int) -> None:
        self._encoder = encoder
        self._batcher: Batcher[_Request] = Batcher(max_frames)
        self._capacity = 2 * POOL_BATCHES * max_frames
        self._long: deque[LongClip] = deque()
        self._long_frames = 0
        self._ranks = itertools.count()
        self._reading: set[int] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._last_end = 0.0
        """When the encoder was last done with something."""
        self.encoded_frames = 0
        self.busy_seconds = 0.0
        """Time that the encoder was at work."""
        self._thread = threading.Thread(target=self._run, name="encode-loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Encode what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def register_shard(self) -> Iterator[int]:
        """The rank of a shard while it is read: it goes before those that come later."""
        rank = next(self._ranks)
        with self._changed:
            self._reading.add(rank)
        try:
            yield rank
        finally:
            with self._changed:
                self._reading.remove(rank)
                self._changed.notify_all()

    def submit(self, clip: Clip, frames: int, deliver: Deliver, rank: int = 0) -> None:
        """Hand a clip over; `deliver` is called from the loop's thread. Blocks while enough is waiting."""
        with self._changed:
            self._wait_for_capacity(rank)
            self._batcher.add(_Request(clip, frames, deliver), frames, rank)
            self._changed.notify_all()

    def open(self, deliver: Deliver, rank: int = 0) -> LongClip:
        """A clip that will come in parts."""
        clip = LongClip(self, self._encoder.stream(), deliver, rank)
        with self._changed:
            self._long.append(clip)
        return clip

    def push(self, clip: LongClip, waveform: np.ndarray, frames: int) -> None:
        with self._changed:
            self._wait_for_capacity(clip.rank)
            if clip in self._long:  # else it failed
                clip.parts.append((waveform, frames))
                self._long_frames += frames
                self._changed.notify_all()

    def end(self, clip: LongClip, info: ClipInfo) -> None:
        with self._changed:
            clip.info = info
            self._changed.notify_all()

    def drop(self, clip: LongClip) -> None:
        with self._changed:
            if clip in self._long:
                self._long.remove(clip)
                self._long_frames -= sum(frames for _, frames in clip.parts)
                self._changed.notify_all()

    @property
    def waiting_frames(self) -> int:
        """Frames that have come and are not encoded yet, but for those that are being encoded."""
        return self._batcher.frames + self._long_frames

    def _wait_for_capacity(self, rank: int) -> None:
        self._changed.wait_for(lambda: self._closed or self._has_capacity(rank))
        if self._closed:
            raise RuntimeError("the encode loop is closed")

    def _has_capacity(self, rank: int) -> bool:
        reserve = self._capacity // 2 if rank == min(self._reading, default=rank) else 0
        return self.waiting_frames < self._capacity + reserve

    def _run(self) -> None:
        running: _Running | None = None
        while True:
            with self._changed:
                if running is None:
                    self._changed.wait_for(lambda: self._closed or self._batcher.frames > 0 or self._next_long())
                batch = self._batcher.take()
                long = self._next_long()
                part = self._take_part(long) if long else None
                self._changed.notify_all()
            if not batch and long is None and running is None:
                return
            following = self._launch(batch) if batch else None
            if running is not None:
                self._finish(running)
            running = following
            if running is not None and running.launched.ready():
                self._finish(running)
                running = None
            if long is not None:
                self._continue(long, part)

    def _next_long(self) -> LongClip | None:
        """The open clip whose turn it is, among those of which a part or the end has come."""
        return next((clip for clip in self._long if clip.parts or clip.info), None)

    def _take_part(self, clip: LongClip) -> tuple[np.ndarray, int] | None:
        self._long.remove(clip)
        if not clip.parts:
            return None  # it is at its end
        self._long.append(clip)  # behind the others
        waveform, frames = clip.parts.popleft()
        self._long_frames -= frames
        return waveform, frames

    def _launch(self, batch: list[_Request]) -> _Running | None:
        started = time.perf_counter()
        try:
            return _Running(batch, self._encoder.launch([request.clip for request in batch]), started)
        except Exception as error:
            self._deliver(batch, [error] * len(batch), started)
            return None

    def _finish(self, running: _Running) -> None:
        results: Sequence[CodedClip | BaseException]
        try:
            results = running.launched.wait()
        except Exception as error:
            results = [error] * len(running.requests)
        self._deliver(running.requests, results, running.started)

    def _deliver(self, batch: list[_Request], results: Sequence[CodedClip | BaseException], started: float) -> None:
        """Where there are errors, the shards of these clips fail and are tried again; the loop goes on."""
        ended = time.perf_counter()
        seconds = ended - max(started, self._last_end)  # it was launched while the one before was still encoded
        self._last_end = ended
        self.busy_seconds += seconds
        frames = sum(request.frames for request in batch)
        self.encoded_frames += frames
        for request, result in zip(batch, results, strict=True):
            request.deliver(result, seconds * request.frames / frames)

    def _continue(self, clip: LongClip, part: tuple[np.ndarray, int] | None) -> None:
        """Encode the next part, or what is left at the end."""
        started = time.perf_counter()
        result: CodedClip | BaseException | None = None
        try:
            if part is not None:
                clip.codes.step(part[0])
                self.encoded_frames += part[1]
            elif clip.info is not None:
                result = clip.codes.finish(clip.info)
        except Exception as error:
            self.drop(clip)
            result = error
        self._last_end = time.perf_counter()
        clip.seconds += self._last_end - started
        self.busy_seconds += self._last_end - started
        if result is not None:
            clip.deliver(result, clip.seconds)
