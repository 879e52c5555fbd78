"""From prepared items to futures of codes: short clips whole, long clips part by part."""

from __future__ import annotations

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
        self._futures: list[Future[Encoded]] = []

    def __enter__(self) -> ClipSubmitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop_long_clip()

    def submit(self, item: Prepared) -> None:
        """Blocks while enough clips wait for the encoder. Raises ValueError for a part of a clip that did not begin."""
        match item:
            case Clip():
                frames = self._target.frames(item.info.num_samples)
                self._futures.append(self._loop.submit(item, frames, self._rank))
            case ClipPart():
                if item.start == 0:
                    self._drop_long_clip()  # the reader died in the middle of it, and the next one began it again
                    self._long_clip = self._loop.open_long_clip(self._rank)
                self._loop.push(self._open_clip(), item.waveform, self._target.frames(item.waveform.shape[1]))
            case ClipEnd():
                self._futures.append(self._loop.end(self._open_clip(), item.info))
                self._long_clip = None
            case Reject():
                self._drop_long_clip()

    def results(self) -> Iterator[Encoded]:
        """The codes of every clip that was submitted, in order. Raises the encoder's error for a clip that failed."""
        for future in self._futures:
            yield future.result()

    def _open_clip(self) -> LongClip:
        if self._long_clip is None:
            raise ValueError("a part or the end of a long clip came before its first part")
        return self._long_clip

    def _drop_long_clip(self) -> None:
        if self._long_clip is not None:
            self._loop.drop(self._long_clip)
            self._long_clip = None
