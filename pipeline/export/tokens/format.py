"""Packed token sequences for language models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np

from pipeline.export.config import REFERENCE, TEXT, TokensConfig
from pipeline.export.selection import Removed, Selected
from pipeline.export.tokens.documents import Content, DocumentLayout
from pipeline.export.tokens.packing import Packed, pack
from pipeline.export.tokens.tokenizer import TextTokenizer

SequenceFiles: TypeAlias = Callable[[str, Iterable[Packed], DocumentLayout], Mapping[str, bytes]]
"""Makes the files of sequences: their contents by name, for a stem that every name begins with."""


class Tokens:
    """Writes a folder of sequences per split. A sequence does not continue in the next file: the last one is padded."""

    need_codes = True

    def __init__(
        self, config: TokensConfig, layout: DocumentLayout, tokenizer: TextTokenizer | None, files: SequenceFiles
    ) -> None:
        self._config = config
        self._layout = layout
        self._tokenizer = tokenizer
        self._files = files
        self.need_text = TEXT in layout.template

    def entry(self, selected: Selected) -> tuple[str, tuple[str, np.ndarray], int] | Removed:
        row = selected.row
        if REFERENCE in self._layout.template and selected.reference is None:
            return Removed("no_reference")
        ids = self._tokenizer.encode(row.text or "") if self._tokenizer and self.need_text else []
        reference = selected.reference.codes if selected.reference else np.empty((len(row.codes), 0), np.int16)
        document = self._layout.document(Content(np.array(ids, np.int64), row.codes, reference))
        if document is None:
            return Removed("special_token_in_text")
        limit = self._layout.sequence_length
        if limit is not None and self._config.pack == "whole" and len(document) > limit:
            return Removed("longer_than_sequence")
        compact = document.astype(np.int32)
        return row.split, (row.id, compact), compact.nbytes

    def files(self, stem: str, entries: list[tuple[str, np.ndarray]]) -> Mapping[str, bytes]:
        sequences = pack(entries, self._layout.sequence_length, self._config.pack == "cut")
        return self._files(stem, sequences, self._layout)
