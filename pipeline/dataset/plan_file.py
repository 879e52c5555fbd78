"""The plan of an output as one Parquet file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.items import RENAMED_FORMATS, ShardSpec
from pipeline.parquet import read_table

READ_ROWS = 50_000


_PLAN_SCHEMA = pa.schema(
    [
        ("shard_id", pa.string()),
        ("split", pa.string()),
        ("format", pa.string()),
        ("uri", pa.binary()),  # names of local files may be any bytes
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("first_line", pa.int64()),
        ("members", pa.list_(pa.binary())),
        ("root", pa.binary()),
        ("size", pa.int64()),
        ("clips", pa.int64()),
        ("version", pa.string()),
    ]
)


def plan_bytes(specs: Sequence[ShardSpec]) -> bytes:
    """The plan as the bytes of a Parquet file, made column by column because a plan may have a million shards."""
    columns: dict[str, list[Any]] = {name: [getattr(spec, name) for spec in specs] for name in _PLAN_SCHEMA.names}
    columns["uri"] = [os.fsencode(uri) for uri in columns["uri"]]
    columns["root"] = [os.fsencode(root) for root in columns["root"]]
    columns["members"] = [[os.fsencode(member) for member in members] for members in columns["members"]]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_PLAN_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def read_plan(data: bytes) -> list[ShardSpec]:
    """The inverse of `plan_bytes`, a part at a time."""
    known = [field.name for field in fields(ShardSpec) if field.init]
    table = read_table(pa.BufferReader(data), known)
    names = table.column_names  # a plan of an earlier version lacks what was not known then
    specs: list[ShardSpec] = []
    for batch in table.to_batches(max_chunksize=READ_ROWS):
        rows = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        specs.extend(_spec(**dict(zip(names, row, strict=True))) for row in rows)
    return specs


def _spec(*, split: str, format: str, uri: bytes, members: list[bytes], root: bytes = b"", **rest: Any) -> ShardSpec:
    return ShardSpec(
        split=sys.intern(split),  # one string object for a million shards
        format=sys.intern(RENAMED_FORMATS.get(format, format)),
        uri=os.fsdecode(uri),
        root=sys.intern(os.fsdecode(root)),
        members=tuple(os.fsdecode(member) for member in members),
        **rest,
    )
