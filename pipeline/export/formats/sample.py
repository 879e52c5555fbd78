"""A clip as a sample of a data loader: its id, its codes, those of its reference, and all that is known of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.export.rows import ExportRow
from pipeline.export.selection import Selected


@dataclass(frozen=True, slots=True)
class Sample:
    """What the formats that trainers stream have of each clip."""

    row: ExportRow
    codes: np.ndarray
    """(frames, num_quantizers), in C order."""
    reference: np.ndarray | None
    """The same of the reference, if the clip has one."""
    metadata: dict[str, Any]
    """What is known of the clip, without what is null: see `sample_of`."""

    @property
    def metadata_json(self) -> str:
        """`metadata` as a JSON object, in ASCII, as bytes of names that are not UTF-8 have no place in a string."""
        return json.dumps(self.metadata, separators=(",", ":"), allow_nan=False)

    @property
    def nbytes(self) -> int:
        """About the size of the sample in a file."""
        reference = 0 if self.reference is None else self.reference.nbytes
        return self.codes.nbytes + reference + len(self.metadata_json)


def sample_of(selected: Selected) -> Sample:
    """The sample of a row. `metadata` holds the columns by their names, `audio`, and `source_metadata`: the rest."""
    row, reference = selected.row, selected.reference
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
        "reference_id": None if reference is None else reference.id,
    }
    return Sample(
        row=row,
        codes=np.ascontiguousarray(row.codes.T),
        reference=None if reference is None else np.ascontiguousarray(reference.codes.T),
        metadata={name: value for name, value in known.items() if value is not None},
    )
