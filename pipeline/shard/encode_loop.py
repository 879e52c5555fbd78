"""The loop that keeps the encoder busy: one thread, and batches across all shards that are open in this process."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from pipeline.items import Clip, ClipInfo, CodedClip
from pipeline.shard.long_clip import Encoded, LongClip, Part
from pipeline.steps.batch import POOL_BATCHES, Batcher

if TYPE_CHECKING:
    from pipeline.steps.encode import Encoder


@dataclass(frozen=True, slots=True)
class _Request:
    """A short clip that waits for a batch."""

    clip: Clip
    frames: int
    future: Future[Encoded]


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch in the encoder."""

    requests: list[_Request]
    codes: Future[list[CodedClip]]
    started: float


class EncodeLoop:
    """Takes clips from many threads and gives each a future of its codes.

    The loop never waits for a fuller batch: while one batch is encoded the next one fills, and whatever has come by
    then is taken. The next batch is launched before the last one is waited for, so that a GPU always has work.

    `submit` and `push` block while 2 * POOL_BATCHES * max_frames frames or more wait. That slows readers down to the
    encoder's speed and bounds the waveforms in memory. Half as much again is reserved for the oldest shard that is
    being read, so that it ends, and the next one begins, before the other open shards end.
    """

    def __init__(self, encoder: Encoder, max_frames: int, turn: threading.Lock | None = None) -> None:
        """`turn` is a lock that the loops of several codecs in one process share, so that one encodes at a time: how
        PyTorch computes, and in how many threads, is set for the whole process.
        """
        self._encoder = encoder
        self._turn = turn or threading.Lock()
        self._batcher: Batcher[_Request] = Batcher(max_frames)
        self._capacity = 2 * POOL_BATCHES * max_frames
        self._long_clips: deque[LongClip] = deque()
        self._long_frames = 0
        self._ranks = itertools.count()
        self._reading: set[int] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._last_end = 0.0
        """When the encoder last finished a batch or a part."""
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

    def __enter__(self) -> EncodeLoop:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the loop; after an error, without encoding what waits."""
        if error is not None:
            with self._changed:
                while self._batcher.take():
                    pass
                self._long_clips.clear()
                self._long_frames = 0
        self.close()

    @contextmanager
    def register_shard(self) -> Iterator[int]:
        """The rank of a shard while it is read. Clips of a lower rank, which is an older shard, are encoded first."""
        rank = next(self._ranks)
        with self._changed:
            self._reading.add(rank)
        try:
            yield rank
        finally:
            with self._changed:
                self._reading.remove(rank)
                self._changed.notify_all()

    def submit(self, clip: Clip, frames: int, rank: int = 0) -> Future[Encoded]:
        """Hand a clip over. Blocks while enough clips wait."""
        request = _Request(clip, frames, Future())
        with self._changed:
            self._wait_for_capacity(rank)
            self._batcher.add(request, frames, rank)
            self._changed.notify_all()
        return request.future

    def open_long_clip(self, rank: int = 0) -> LongClip:
        """Begin a clip that comes in parts."""
        clip = LongClip(self._encoder.stream(), rank)
        with self._changed:
            self._long_clips.append(clip)
        return clip

    def push(self, clip: LongClip, waveform: np.ndarray, frames: int) -> None:
        """Hand the next part of a long clip over. Blocks while enough clips wait."""
        with self._changed:
            self._wait_for_capacity(clip.rank)
            if clip in self._long_clips:  # else a part has failed, and so has the clip's future
                clip.parts.append(Part(waveform, frames))
                self._long_frames += frames
                self._changed.notify_all()

    def end(self, clip: LongClip, info: ClipInfo) -> Future[Encoded]:
        """All parts of a long clip were handed over."""
        with self._changed:
            clip.info = info
            self._changed.notify_all()
        return clip.future

    def drop(self, clip: LongClip) -> None:
        """Forget a long clip that turned out to be unusable. Its future is never done."""
        with self._changed:
            if clip in self._long_clips:
                self._long_clips.remove(clip)
                self._long_frames -= sum(part.frames for part in clip.parts)
                self._changed.notify_all()

    @property
    def waiting_frames(self) -> int:
        """Frames that were handed over and are not in the encoder yet."""
        return self._batcher.frames + self._long_frames

    def _wait_for_capacity(self, rank: int) -> None:
        self._changed.wait_for(lambda: self._closed or self._has_capacity(rank))
        if self._closed:
            raise RuntimeError("the encode loop is closed")

    def _has_capacity(self, rank: int) -> bool:
        reserve = self._capacity // 2 if rank == min(self._reading, default=rank) else 0
        return self.waiting_frames < self._capacity + reserve

    def _run(self) -> None:
        running: _Batch | None = None
        while True:
            with self._changed:
                if running is None:
                    self._changed.wait_for(lambda: self._closed or self._batcher.frames > 0 or self._next_long_clip())
                requests = self._batcher.take()
                long_clip = self._next_long_clip()
                part = self._take_part(long_clip) if long_clip else None
                self._changed.notify_all()
            if not requests and long_clip is None and running is None:
                return
            following = self._launch(requests) if requests else None
            if running is not None:
                self._finish(running)
            running = following
            if running is not None and running.codes.done():
                self._finish(running)
                running = None
            if long_clip is not None:
                self._continue(long_clip, part)

    def _next_long_clip(self) -> LongClip | None:
        """The first of the open long clips of which something waits."""
        return next((clip for clip in self._long_clips if clip.ready), None)

    def _take_part(self, clip: LongClip) -> Part | None:
        """The next part of the clip, which goes behind the other clips; None at its end, where it leaves the queue."""
        self._long_clips.remove(clip)
        if not clip.parts:
            return None
        self._long_clips.append(clip)
        part = clip.parts.popleft()
        self._long_frames -= part.frames
        return part

    def _launch(self, requests: list[_Request]) -> _Batch:
        codes: Future[list[CodedClip]]
        with self._turn:
            started = time.perf_counter()
            try:
                codes = self._encoder.launch([request.clip for request in requests])
            except Exception as error:
                codes = Future()
                codes.set_exception(error)
        return _Batch(requests, codes, started)

    def _finish(self, batch: _Batch) -> None:
        """Wait for the codes of a batch. If it failed, so do the shards of its clips; the loop goes on."""
        error = batch.codes.exception()
        seconds = self._account(batch.started)
        frames = sum(request.frames for request in batch.requests)
        self.encoded_frames += frames
        if error is not None:
            for request in batch.requests:
                request.future.set_exception(error)
            return
        for request, clip in zip(batch.requests, batch.codes.result(), strict=True):
            request.future.set_result(Encoded(clip, seconds * request.frames / frames))

    def _continue(self, clip: LongClip, part: Part | None) -> None:
        """Encode a part of a long clip, or what is left of it at its end."""
        coded: CodedClip | None = None
        error: Exception | None = None
        with self._turn:
            started = time.perf_counter()
            try:
                if part is not None:
                    clip.stream.step(part.waveform)
                    self.encoded_frames += part.frames
                elif clip.info is not None:
                    coded = clip.stream.finish(clip.info)
            except Exception as failure:
                self.drop(clip)
                error = failure
            clip.seconds += self._account(started)
        if error is not None:
            clip.future.set_exception(error)
        elif coded is not None:
            clip.future.set_result(Encoded(coded, clip.seconds))

    def _account(self, started: float) -> float:
        """Seconds of the encoder for what was begun at `started` and has just ended: never a moment counted twice."""
        ended = time.perf_counter()
        seconds = ended - max(started, self._last_end)  # it was launched while the one before was still encoded
        self._last_end = ended
        self.busy_seconds += seconds
        return seconds
