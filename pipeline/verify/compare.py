"""Compares a clip that was encoded again with its stored row or reject."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset.layout import Layout
from pipeline.dataset.provenance import RunRecord
from pipeline.items import CodedClip, Reject, ShardSpec
from pipeline.parquet import open_table
from pipeline.steps.records import codes_table

BATCH_ROWS = 256
CLOSE = 1e-5
"""Relative and absolute tolerance: levels are sums of floats, and a processor may add them in another order."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored rows and rejects of some clips of a shard."""

    rows: dict[str, pa.RecordBatch]
    """By id of the clip; each batch has one row."""
    rejects: dict[str, pa.RecordBatch]

    def reason(self, clip_id: str) -> str | None:
        """Why the clip was rejected; None if it was not."""
        return self.rejects[clip_id]["reason"][0].as_py() if clip_id in self.rejects else None


def read_stored(layout: Layout, spec: ShardSpec, ids: Collection[str]) -> Stored:
    """The rows and rejects with these ids. Raises StorageError, and anything that Arrow raises for a damaged object."""
    return Stored(_rows(layout.data(spec), ids), _rows(layout.rejects(spec), ids))


def _rows(uri: str, ids: Collection[str]) -> dict[str, pa.RecordBatch]:
    if storage.stat(uri) is None:
        return {}
    names = pa.array(sorted(ids), pa.string())
    found: dict[str, pa.RecordBatch] = {}
    with storage.open_read(uri) as stream:
        for batch in open_table(stream).iter_batches(BATCH_ROWS, use_threads=False):
            kept = batch.filter(pc.is_in(batch["id"], names))
            found.update((kept["id"][row].as_py(), kept.slice(row, 1)) for row in range(kept.num_rows))
    return found


def compare_row(coded: CodedClip, clip_id: str, stored: Stored, record: RunRecord) -> tuple[str | None, str] | None:
    """The first column that differs, and a message about all that do; None if every column is equal.

    `stored` has the clip, as a row or as a reject.
    """
    if clip_id not in stored.rows:
        return None, f"it was rejected ({stored.reason(clip_id)}), and now it can be encoded"
    row = stored.rows[clip_id]
    shard_id = clip_id.rpartition("-")[0]
    made = codes_table(shard_id, [coded], record.code_columns, record.model.sample_rate)
    columns = [name for name in made.column_names if name in row.schema.names]  # an earlier version had fewer
    differing = [name for name in columns if not _same(made[name][0], row[name][0])]
    if not differing:
        return None
    codes = [name for name in differing if name.startswith("codes_")]
    others = [name for name in differing if name not in codes]
    parts = [f"{name} is {_short(made[name][0])} now and {_short(row[name][0])} in the row" for name in others]
    if codes:
        parts.append(_codes_message(codes, made, row))
        if "audio_xxh3" not in differing:
            parts.append("the waveform is the same, so either the encoder differs or the row was changed")
    return (codes or others)[0], "; ".join(parts)


def compare_reject(reject: Reject, clip_id: str, stored: Stored) -> tuple[str | None, str] | None:
    """The column that differs and a message; None if stage and reason are equal. `stored` has the clip."""
    now = f"now {reject.stage} rejects it ({reject.reason}): {reject.message}"
    if clip_id not in stored.rejects:
        return None, f"it has a row, and {now}"
    stage, reason = (stored.rejects[clip_id][column][0].as_py() for column in ("stage", "reason"))
    if (stage, reason) == (reject.stage, reject.reason):
        return None
    return "reason", f"{stage} rejected it ({reason}), {now}"


def _same(one: pa.Scalar, other: pa.Scalar) -> bool:
    if pa.types.is_float32(one.type) and one.is_valid and other.is_valid:
        return bool(np.isclose(one.as_py(), other.as_py(), rtol=CLOSE, atol=CLOSE))
    return bool(one.as_py() == other.as_py())


def _short(value: pa.Scalar) -> str:
    return repr(value.as_py())[:80]


def _codes_message(columns: Sequence[str], made: pa.Table, row: pa.RecordBatch) -> str:
    first: Any = columns[0]
    now, then = (np.asarray(table[first][0].values) for table in (made, row))
    layers = f"{len(columns)} code columns differ, the first is {first}"
    if len(now) != len(then):
        return f"{layers}: {len(now)} frames now and {len(then)} in the row"
    frames = np.flatnonzero(now != then)
    place = f"frame {frames[0]} is {now[frames[0]]} now and {then[frames[0]]} in the row"
    return f"{layers}: {len(frames)} of {len(now)} frames, {place}"
