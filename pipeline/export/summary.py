"""The summary of an export: rows that it holds, and rows that it left out. Every row of the dataset is one of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from pipeline.export.part import ExportManifest


@dataclass(slots=True)
class ExportSummary:
    """Contents of `_moss_tok/report.json`."""

    rows: int = 0
    """Rows of the dataset's shards."""
    written: dict[str, int] = field(default_factory=dict)
    """Rows by split."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of audio written, by split."""
    removed: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    references: int = 0
    """Rows written with a reference."""
    files: int = 0
    size: int = 0
    """Bytes of the files."""
    unknown_rejects: int = 0
    """Ids of the reject lists that no row has."""

    def add(self, part: ExportManifest) -> None:
        """Add the counts of a part."""
        self.rows += part.rows
        self.written = dict(Counter(self.written) + Counter(part.written))
        self.removed = dict(Counter(self.removed) + Counter(part.removed))
        for split, seconds in part.seconds.items():
            self.seconds[split] = self.seconds.get(split, 0.0) + seconds
        self.references += part.references
        self.files += len(part.files)
        self.size += sum(file["size"] for file in part.files.values())

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()
