"""The values of each clip, as Parquet: one row for a clip, a subject and a number of quantizers.

A clip that was rejected has one row without a subject, so that no clip is missing. A metric without a value is null,
and `undefined` says why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

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
    pa.field("reject_reason", pa.string()),
    pa.field("undefined", pa.string(), nullable=False),
)
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
    reject_reason: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    """For each metric without a value the reason."""


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
    }
    for name in metrics:
        columns[name] = [row.values.get(name) for row in rows]
    return to_parquet(pa.table(columns, schema=schema), {"moss_tok.evaluation": "1"}, ROW_GROUP_ROWS)
