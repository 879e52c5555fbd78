"""Run a codec over whole clips, or over the same clips in chunks with a state that is passed from chunk to chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from moss_tok.stack import StreamState

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Step(Protocol[Result_co]):
    """The type of `encode_step` and `decode_step`: one chunk of several streams and their states -> results and new
    states."""

    def __call__(
        self, chunks: Sequence[Tensor], states: Sequence[StreamState] | None
    ) -> tuple[Sequence[Result_co], list[StreamState]]: ...


def in_chunks(clips: list[Tensor], size: int | None, step: Step[Result]) -> list[list[Result]]:
    """Run `step` over clips (rows, length), whole or in chunks of `size` along their length. Returns the results of
    each clip."""
    if size is None:
        results, _ = step(clips, None)
        return [[result] for result in results]
    parts: list[list[Result]] = [[] for _ in clips]
    states = [StreamState() for _ in clips]
    for start in range(0, max(clip.shape[1] for clip in clips), size):
        members = [index for index, clip in enumerate(clips) if clip.shape[1] > start]
        chunks = [clips[index][:, start : start + size] for index in members]
        results, advanced = step(chunks, [states[index] for index in members])
        for index, result, state in zip(members, results, advanced, strict=True):
            parts[index].append(result)
            states[index] = state
    return parts
