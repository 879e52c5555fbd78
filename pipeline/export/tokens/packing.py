"""Packs documents into sequences, and unpacks them. Their order is kept, so sequences depend only on the documents."""

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
    """The document of each clip, or a piece of it: (steps, streams)."""

    @property
    def lengths(self) -> list[int]:
        return [len(piece) for piece in self.pieces]

    def steps(self, length: int | None, padding: np.ndarray) -> np.ndarray:
        """The sequence (length, streams), filled up with the step `padding`; not filled up if `length` is None."""
        missing = 0 if length is None else length - sum(self.lengths)
        return np.concatenate([*self.pieces, np.tile(padding, (missing, 1))])


def pack(documents: Iterable[tuple[str, np.ndarray]], length: int | None, cut: bool) -> Iterator[Packed]:
    """Yields sequences of at most `length` steps; without a length, one sequence per document.

    With `cut`, documents are laid end to end and cut, so that all sequences but the last are full. Without, a document
    that does not fit the rest of a sequence begins the next one. Raises ValueError if it is longer than a sequence.
    """
    waiting: list[tuple[str, np.ndarray]] = []
    left = length or 0
    for clip_id, document in documents:
        if length is None:
            yield Packed((clip_id,), (document,))
            continue
        if not cut and len(document) > left and waiting:
            yield _packed(waiting)
            waiting, left = [], length
        while len(document) > left:
            if not cut:
                raise ValueError(f"{clip_id}: {len(document)} steps do not fit a sequence of {length}")
            waiting.append((clip_id, document[:left]))
            document = document[left:]
            yield _packed(waiting)
            waiting, left = [], length
        waiting.append((clip_id, document))
        left -= len(document)
        if left == 0:
            yield _packed(waiting)
            waiting, left = [], length
    if waiting:
        yield _packed(waiting)


def unpack(sequences: Iterable[Packed]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the id and the document of each clip. Pieces of one clip must follow each other."""
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
