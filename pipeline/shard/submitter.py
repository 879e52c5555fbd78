"""From prepared items to codes: hands short clips to the encode loop whole, and long clips part by part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType

from pipeline.items import Clip, ClipEnd, ClipPart, Prepared, Reject
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.shard.long_clip import Encoded, LongClip
from pipeline.steps.prepare import Target


class ClipSubmitter:
    """Hands the items of one source to the encode loop, in their order. At most one long clip is open at a time.

    Used as a context manager, it drops a long clip whose end never comes.
    """

    def __init__(self, loop: EncodeLoop, target: Target, rank: int = 0) -> None:
        self._loop = loop
        self._target = target
        self._rank = rank
        self._long_clip: LongClip | None = None
        self._pending: deque[Future[Encoded]] = deque()
        self._done: list[Encoded] = []

    def __enter__(self) -> ClipSubmitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop_long_clip()

    def submit(self, item: Prepared) -> None:
        """Hand an item over. Blocks while enough clips wait for the encoder.

        Raises ValueError for a part of a clip that did not begin.
        """
        self._collect()
        match item:
            case Clip():
                frames = self._target.frames(item.info.num_samples)
                self._pending.append(self._loop.submit(item, frames, self._rank))
            case ClipPart():
                if item.start == 0:
                    self._drop_long_clip()  # the reader died in the middle of it, and the next one began it again
                    self._long_clip = self._loop.open_long_clip(self._rank)
                self._loop.push(self._open_clip(), item.waveform, self._target.frames(item.waveform.shape[1]))
            case ClipEnd():
                self._pending.append(self._loop.end(self._open_clip(), item.info))
                self._long_clip = None
            case Reject():
                self._drop_long_clip()

    def results(self) -> Iterator[Encoded]:
        """The codes of every clip that was submitted, in order. Raises the encoder's error for a clip that failed."""
        yield from self._done
        while self._pending:
            yield self._pending.popleft().result()

    def _collect(self) -> None:
        """Keep results instead of futures: each future is several objects, which keep the garbage collector busy."""
        while self._pending and self._pending[0].done() and self._pending[0].exception() is None:
            self._done.append(self._pending.popleft().result())

    def _open_clip(self) -> LongClip:
        if self._long_clip is None:
            raise ValueError("a part or the end of a long clip came before its first part")
        return self._long_clip

    def _drop_long_clip(self) -> None:
        if self._long_clip is not None:
            self._loop.drop(self._long_clip)
            self._long_clip = None
