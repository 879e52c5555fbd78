"""The loop that keeps the encoder busy: one thread, batches across all shards that are open in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.batch import POOL_BATCHES, Batcher
from pipeline.encode import Encoder
from pipeline.items import Clip, CodedClip

Deliver = Callable[["CodedClip | BaseException", float], None]
"""Takes the codes of a clip, or why there are none, and the encoder's seconds for it."""


@dataclass(frozen=True, slots=True)
class _Order:
    clip: Clip
    frames: int
    deliver: Deliver


class EncodeLoop:
    """Clips in from many threads, codes out through their callbacks.

    It never waits for a fuller batch: while one is encoded the next fills, and whatever has come by then is taken.
    `submit` blocks while more than a few batches wait, which is what slows the readers down to the encoder's speed.
    """

    def __init__(self, encoder: Encoder, max_frames: int) -> None:
        self._encoder = encoder
        self._batcher: Batcher[_Order] = Batcher(max_frames)
        self._room = 2 * POOL_BATCHES * max_frames
        self._changed = threading.Condition()
        self._closed = False
        self.encoded_frames = 0
        self._thread = threading.Thread(target=self._run, name="encode-loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Encode what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, clip: Clip, frames: int, deliver: Deliver) -> None:
        """Hand a clip over; `deliver` is called from the loop's thread. Blocks while enough is waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._batcher.frames < self._room)
            if self._closed:
                raise RuntimeError("the encode loop is closed")
            self._batcher.add(_Order(clip, frames, deliver), frames)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._batcher.frames > 0)
                batch = self._batcher.take()
                self._changed.notify_all()
            if not batch:
                return
            self._encode(batch)

    def _encode(self, batch: list[_Order]) -> None:
        started = time.perf_counter()
        results: Sequence[CodedClip | BaseException]
        try:
            results = self._encoder.encode([order.clip for order in batch])
        except Exception as error:
            # The shards of these clips fail and are tried again; the others, and the loop, go on.
            results = [error] * len(batch)
        seconds = time.perf_counter() - started
        frames = sum(order.frames for order in batch)
        self.encoded_frames += frames
        for order, result in zip(batch, results, strict=True):
            order.deliver(result, seconds * order.frames / frames)
