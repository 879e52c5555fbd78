"""The values of each clip, as Parquet: one row for a clip, a subject and a number of quantizers.

A clip that was rejected has one row without a subject, so that no clip is missing. A metric without a value is null,
and `undefined` says why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import pyarrow as pa

from pipeline.evaluate.agreement import ClipAgreement
from pipeline.steps.write import to_parquet

FIXED = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("language", pa.string()),
    pa.field("duration", pa.float64()),
    pa.field("subject", pa.string()),
    pa.field("num_quantizers", pa.int32()),
    pa.field("bits_per_second", pa.float64()),
    pa.field("machine", pa.string()),
    pa.field("reject_reason", pa.string()),
    pa.field("undefined", pa.string(), nullable=False),
    pa.field("reference", pa.string()),
    pa.field("frames", pa.int32()),
    pa.field("equal_codes", pa.list_(pa.int32())),
    pa.field("equal_frames", pa.int32()),
    pa.field("sound_mel", pa.float64()),
    pa.field("sound_si_sdr", pa.float64()),
)
AGREEMENT = tuple(item.name for item in fields(ClipAgreement))
FORMAT = "2"
"""Version of the columns."""
ROW_GROUP_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipValues:
    """One row."""

    id: str
    source: str
    key: str
    language: str | None = None
    duration: float | None = None
    """Seconds."""
    subject: str | None = None
    num_quantizers: int | None = None
    bits_per_second: float | None = None
    machine: str | None = None
    """The kind of machine that made the codes."""
    reject_reason: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    """For each metric without a value the reason."""
    agreement: ClipAgreement | None = None
    """With the first subject of the same model."""


def results_schema(metrics: Sequence[str]) -> pa.Schema:
    """The columns of a results file."""
    return pa.schema([*FIXED, *(pa.field(name, pa.float64()) for name in metrics)])


def to_results(rows: Sequence[ClipValues], metrics: Sequence[str]) -> bytes:
    """The bytes of one results file: the same rows give the same bytes."""
    schema = results_schema(metrics)
    columns = {
        item.name: [
            json.dumps(row.undefined, sort_keys=True) if item.name == "undefined" else getattr(row, item.name)
            for row in rows
        ]
        for item in FIXED
        if item.name not in AGREEMENT
    }
    columns |= {name: [getattr(row.agreement, name, None) for row in rows] for name in AGREEMENT}
    for name in metrics:
        columns[name] = [row.values.get(name) for row in rows]
    return to_parquet(pa.table(columns, schema=schema), {"moss_tok.evaluation": FORMAT}, ROW_GROUP_ROWS)
