"""Decides about each row before a format gets it: left out for a reason, or given a split, a text and a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.dataset.dataset import Output
from pipeline.export.config import ExportConfig
from pipeline.export.filters import Filters
from pipeline.export.references import Reference, References
from pipeline.export.rows import ExportRow, read_rows
from pipeline.export.splits import split_of
from pipeline.export.text import normalizer
from pipeline.items import ShardSpec


@dataclass(frozen=True, slots=True)
class Removed:
    """A row that is left out."""

    reason: str


@dataclass(frozen=True, slots=True)
class Selected:
    """A row that is exported; its `split` is that of the export, its `text` is normalized."""

    row: ExportRow
    reference: Reference | None


class RowSelector:
    """The rules of a configuration, for rows of any shard."""

    def __init__(self, config: ExportConfig, need_text: bool, database: Path) -> None:
        self._config = config
        self._filters = Filters(config.filters, need_text)
        self._need_text = need_text
        self._normalize = normalizer(config.text)
        self._references = References(database, config.references) if config.references.enabled else None

    def survey(self, output: Output, spec: ShardSpec) -> Iterator[ExportRow]:
        """Yields the kept rows of a shard and collects candidates for references. Codes are read only for these."""
        layers = self.layers(output) if self._references else 0
        for row in read_rows(output, spec, layers, self._config.filters.where):
            kept = self._keep(row)
            if isinstance(kept, ExportRow):
                if self._references:
                    self._references.consider(kept.split, kept)
                yield kept

    def select(self, output: Output, spec: ShardSpec, with_codes: bool) -> Iterator[Selected | Removed]:
        """Yields every row of a shard in source order. References must have been surveyed before."""
        layers = self.layers(output) if with_codes else 0
        for row in read_rows(output, spec, layers, self._config.filters.where):
            kept = self._keep(row)
            if isinstance(kept, Removed):
                yield kept
                continue
            reference = self._references.of(kept.split, kept) if self._references else None
            if reference is None and self._references and self._config.references.required:
                yield Removed("no_reference")
            else:
                yield Selected(kept, reference)

    def layers(self, output: Output) -> int:
        """RVQ layers to export."""
        return self._config.dataset.num_quantizers or output.record.num_quantizers

    def close(self) -> None:
        if self._references:
            self._references.close()

    def _keep(self, row: ExportRow) -> ExportRow | Removed:
        if reason := self._filters.reason(row):
            return Removed(reason)
        split = split_of(row, self._config.splits)
        if split is None:
            return Removed("no_speaker")
        text = self._normalize(row.text, row.language) if row.text is not None else None
        if self._need_text and not text:
            return Removed("no_text_left")
        return replace(row, split=split, text=text)
