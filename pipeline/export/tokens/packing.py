"""Documents into sequences, and back. Their order is kept, so that the sequences depend on them alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Packed:
    """One sequence, without its padding."""

    ids: tuple[str, ...]
    """The clips in it, in order."""
    pieces: tuple[np.ndarray, ...]
    """Of each clip its document or a piece of it: (steps, streams)."""

    @property
    def lengths(self) -> list[int]:
        return [len(piece) for piece in self.pieces]

    def steps(self, length: int | None, padding: np.ndarray) -> np.ndarray:
        """(length, streams), filled up with the step `padding`; without a length as long as it is."""
        missing = 0 if length is None else length - sum(self.lengths)
        return np.concatenate([*self.pieces, np.tile(padding, (missing, 1))])


def pack(documents: Iterable[tuple[str, np.ndarray]], length: int | None, cut: bool) -> Iterator[Packed]:
    """Sequences of at most `length` steps; without a length, one for each document.

    Cut, documents lie end to end and all sequences but the last are full. Whole, a document that does not fit into what
    is left begins the next sequence; it must not be longer than one.
    """
    waiting: list[tuple[str, np.ndarray]] = []
    room = length or 0
    for clip_id, document in documents:
        if length is None:
            yield Packed((clip_id,), (document,))
            continue
        if not cut and len(document) > room and waiting:
            yield _packed(waiting)
            waiting, room = [], length
        while len(document) > room:
            if not cut:
                raise ValueError(f"{clip_id}: {len(document)} steps do not fit a sequence of {length}")
            waiting.append((clip_id, document[:room]))
            document = document[room:]
            yield _packed(waiting)
            waiting, room = [], length
        waiting.append((clip_id, document))
        room -= len(document)
        if room == 0:
            yield _packed(waiting)
            waiting, room = [], length
    if waiting:
        yield _packed(waiting)


def unpack(sequences: Iterable[Packed]) -> Iterator[tuple[str, np.ndarray]]:
    """The documents again: pieces of one clip follow each other."""
    clip_id: str | None = None
    pieces: list[np.ndarray] = []
    for sequence in sequences:
        for name, piece in zip(sequence.ids, sequence.pieces, strict=True):
            if name != clip_id and clip_id is not None:
                yield clip_id, np.concatenate(pieces)
                pieces = []
            clip_id = name
            pieces.append(piece)
    if clip_id is not None:
        yield clip_id, np.concatenate(pieces)


def _packed(waiting: list[tuple[str, np.ndarray]]) -> Packed:
    ids, pieces = zip(*waiting, strict=True)
    return Packed(ids, pieces)
