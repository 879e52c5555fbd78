"""Converts a clip to a document of a language model, by a template of text, codes and special tokens, and back.

A document is int64 (steps, streams). The flat layout has one stream; the others have a stream of text and one per RVQ
layer. The text stream has a slot token beside codes, and code streams have `audio_pad` beside text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.export.config import AUDIO, REFERENCE, TEXT
from pipeline.export.tokens.layouts import delay, flatten, undelay, unflatten
from pipeline.schema import code_type
from pipeline.yaml_config import Section


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a document."""

    text: np.ndarray
    """Token ids of the text, int64."""
    codes: np.ndarray
    """int16 (num_quantizers, frames)."""
    reference: np.ndarray
    """Codes of the reference; without frames if the template has no reference."""


class DocumentLayout(Section):
    """Everything that is needed to write and read documents. Every file has it as JSON."""

    template: tuple[int | str, ...]
    """{text}, {audio}, {reference}, and ids of special tokens."""
    num_quantizers: int
    codebook_size: int
    text_offset: int
    vocabulary_size: int
    """Number of ids of the tokenizer; 0 without a tokenizer."""
    audio_offset: int
    separate_layers: bool
    delays: tuple[int, ...] | None
    """Delay of each code stream in steps; None in the flat layout."""
    audio_slots: tuple[int, int]
    """Tokens in the text stream beside codes, and beside the steps after the last frame."""
    reference_slots: tuple[int, int]
    audio_pad: int
    pad: int | None
    sequence_length: int | None
    repeats: tuple[int, ...] | None = None
    """How often each layer's codes are repeated in a matrix, where frame rates differ: see `flatten`."""

    @property
    def streams(self) -> int:
        return 1 if self.delays is None else 1 + self.num_quantizers

    @property
    def largest_id(self) -> int:
        """The largest id in any stream."""
        size = self.codebook_size * (self.num_quantizers if self.separate_layers and self.delays is None else 1)
        fixed = [token for token in self.template if isinstance(token, int)]
        return max(
            *(self.text_offset + self.vocabulary_size - 1, self.audio_offset + size - 1, self.pad or 0),
            *((self.audio_pad, *self.audio_slots, *self.reference_slots) if self.delays is not None else ()),
            *fixed,
        )

    def document(self, content: Content) -> np.ndarray | None:
        """The document of a clip; None if its text contains an id that the layout uses as a special token."""
        text = content.text.astype(np.int64) + self.text_offset
        if np.isin(text, self.marks).any():
            return None
        parts = {TEXT: self._step(text), AUDIO: self._audio(content.codes, self.audio_slots)}
        if REFERENCE in self.template:
            parts[REFERENCE] = self._audio(content.reference, self.reference_slots)
        return np.concatenate(
            [parts[part] if isinstance(part, str) else self._step(np.array([part])) for part in self.template]
        )

    def content(self, document: np.ndarray) -> Content:
        """The inverse of `document`. Raises ValueError for what is not a document of this layout."""
        empty = np.empty((self.num_quantizers, 0), code_type(self.codebook_size))
        found: dict[str, np.ndarray] = {TEXT: np.empty(0, np.int64), AUDIO: empty, REFERENCE: empty}
        at = 0
        for part in self.template:
            if isinstance(part, int):
                if at >= len(document) or document[at, 0] != part:
                    raise ValueError(f"step {at}: expected token {part}")
                at += 1
                continue
            belongs = self._is_text if part == TEXT else self._is_reference if part == REFERENCE else self._is_audio
            others = np.flatnonzero(~belongs(document[at:, 0]))
            stop = at + int(others[0]) if len(others) else len(document)
            steps = document[at:stop]
            found[part] = steps[:, 0] - self.text_offset if part == TEXT else self._codes(steps)
            at = stop
        if at != len(document):
            raise ValueError(f"step {at}: {len(document) - at} steps more than the template has")
        return Content(found[TEXT], found[AUDIO], found[REFERENCE])

    @property
    def marks(self) -> list[int]:
        """Ids in the text stream that are not text: special tokens and slots."""
        slots = [] if self.delays is None else [*self.audio_slots, *self.reference_slots]
        return [*(part for part in self.template if isinstance(part, int)), *slots]

    def _step(self, ids: np.ndarray) -> np.ndarray:
        steps = np.full((len(ids), self.streams), self.audio_pad, np.int64)
        steps[:, 0] = ids
        return steps

    def _audio(self, codes: np.ndarray, slots: tuple[int, int]) -> np.ndarray:
        if self.delays is None:
            return flatten(codes, self.audio_offset, self.codebook_size, self.separate_layers, self.repeats)[:, None]
        late = delay(codes.astype(np.int64) + self.audio_offset, self.delays, self.audio_pad)
        slot = np.where(np.arange(len(late)) < codes.shape[1], *slots)
        return np.concatenate([slot[:, None], late], axis=1)

    def _codes(self, steps: np.ndarray) -> np.ndarray:
        if self.delays is None:
            return unflatten(
                steps[:, 0],
                self.num_quantizers,
                self.audio_offset,
                self.codebook_size,
                self.separate_layers,
                self.repeats,
            )
        return undelay(steps[:, 1:] - self.audio_offset, self.delays, self.codebook_size)

    def _is_audio(self, ids: np.ndarray) -> np.ndarray:
        return self._is_code(ids) if self.delays is None else np.isin(ids, self.audio_slots)

    def _is_reference(self, ids: np.ndarray) -> np.ndarray:
        return self._is_code(ids) if self.delays is None else np.isin(ids, self.reference_slots)

    def _is_text(self, ids: np.ndarray) -> np.ndarray:
        inside = (self.text_offset <= ids) & (ids < self.text_offset + self.vocabulary_size)
        return inside & ~np.isin(ids, self.marks)

    def _is_code(self, ids: np.ndarray) -> np.ndarray:
        layers = self.num_quantizers if self.separate_layers else 1
        return (self.audio_offset <= ids) & (ids < self.audio_offset + layers * self.codebook_size)
