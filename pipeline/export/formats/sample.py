"""A clip, or the clips of a document, as a sample of a data loader: codes, those of a reference, and metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.export.config import SamplesConfig
from pipeline.export.references import Reference
from pipeline.export.rows import ExportRow
from pipeline.export.selection import Selected


@dataclass(frozen=True, slots=True)
class Sample:
    """What the formats that trainers stream have of each clip or document."""

    id: str
    split: str
    codes: np.ndarray
    """(frames, num_quantizers), in C order."""
    reference: np.ndarray | None
    """The same of the reference, if there is one."""
    metadata: dict[str, Any]
    """What is known, without what is null: see `Samples.sample`."""

    @property
    def metadata_json(self) -> str:
        """`metadata` as a JSON object in ASCII."""
        return json.dumps(self.metadata, separators=(",", ":"), allow_nan=False)

    @property
    def nbytes(self) -> int:
        """About the size of the sample in a file."""
        reference = 0 if self.reference is None else self.reference.nbytes
        return self.codes.nbytes + reference + len(self.metadata_json)


class Samples:
    """What the formats of samples have in common: which rows are one sample, and what it holds."""

    need_text = False
    need_codes = True

    def __init__(self, config: SamplesConfig) -> None:
        self._join = config.join

    def group(self, row: ExportRow) -> str | None:
        return None if self._join is None else row.group(self._join)

    def sample(self, group: Sequence[Selected]) -> Sample:
        """The sample of these rows. `metadata` holds the columns by their names, `audio`, `source_metadata` and
        `reference_id`; of a document, what its clips have in common, and `parts`: each clip, with the frame of the
        sample at which it begins.
        """
        rows = [selected.row for selected in group]
        reference = outside(group, group)
        metadata = _known(rows[0]) if self._join is None else _document(rows)
        if reference is not None:
            metadata["reference_id"] = reference.id
        return Sample(
            id=rows[0].id,
            split=rows[0].split,
            codes=np.ascontiguousarray(np.concatenate([row.codes for row in rows], axis=1).T),
            reference=None if reference is None else np.ascontiguousarray(reference.codes.T),
            metadata=metadata,
        )


def outside(group: Sequence[Selected], document: Sequence[Selected]) -> Reference | None:
    """The first reference of the rows of `group` that is no row of `document` itself."""
    ids = {selected.row.id for selected in document}
    references = (selected.reference for selected in group if selected.reference is not None)
    return next((reference for reference in references if reference.id not in ids), None)


def _known(row: ExportRow) -> dict[str, Any]:
    """What is known of a clip."""
    known = {
        "id": row.id,
        "audio": row.address,
        "duration": row.duration,
        "num_frames": row.num_frames,
        "num_samples": row.num_samples,
        "sample_rate": row.sample_rate,
        "text": row.text,
        "language": row.language,
        "speaker_id": row.speaker_id,
        "labels": row.labels,
        "source_metadata": row.source_metadata or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _document(rows: Sequence[ExportRow]) -> dict[str, Any]:
    """What is known of clips that are one document. Their gaps are those between the times of its parts."""
    parts = [_known(row) for row in rows]
    first_frame = 0
    for row, part in zip(rows, parts, strict=True):
        part |= {"first_frame": first_frame} | ({} if row.start is None else {"start": row.start})
        first_frame += row.num_frames
    common: dict[str, Any] = {
        name: parts[0][name]
        for name in ("language", "speaker_id", "sample_rate")
        if name in parts[0] and all(part.get(name) == parts[0][name] for part in parts)
    }
    sums = {name: sum(part[name] for part in parts) for name in ("duration", "num_frames", "num_samples")}
    text = " ".join(row.text for row in rows if row.text)
    spoken = {"text": text} if text else {}
    return {"id": rows[0].id, "audio": rows[0].audio, **sums, **spoken, **common, "parts": parts}
