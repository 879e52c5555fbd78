"""The plan of an output as one Parquet file."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.provenance import RunRecord
from pipeline.items import RENAMED_FORMATS, ShardSpec
from pipeline.parquet import read_table
from pipeline.parquet_checksum import BLANK, CHECKSUM, check_parquet, insert_checksum

READ_ROWS = 50_000
RECORD = "moss_tok.record"


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


def plan_bytes(specs: Sequence[ShardSpec], record: RunRecord | None = None) -> bytes:
    """The plan as the bytes of a Parquet file, made column by column because a plan may have a million shards.

    A copy of the run's record stands in its footer, and its own checksum (see pipeline/parquet_checksum.py).
    """
    columns: dict[str, list[Any]] = {name: [getattr(spec, name) for spec in specs] for name in _PLAN_SCHEMA.names}
    columns["uri"] = [os.fsencode(uri) for uri in columns["uri"]]
    columns["root"] = [os.fsencode(root) for root in columns["root"]]
    columns["members"] = [[os.fsencode(member) for member in members] for members in columns["members"]]
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, _PLAN_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(pa.table(columns, schema=_PLAN_SCHEMA))
        copy = {} if record is None else {RECORD: replace(record, plan_sha256="").to_json().decode()}
        writer.add_key_value_metadata({CHECKSUM: BLANK} | copy)
    data: bytes = insert_checksum(sink.getvalue())
    return data


def record_in_plan(data: bytes) -> RunRecord:
    """The record of the run that made the plan. Raises ValueError if the plan is damaged or holds none."""
    check_parquet(data)
    copy = (pq.read_metadata(pa.BufferReader(data)).metadata or {}).get(RECORD.encode())
    if copy is None:
        raise ValueError("it holds no record of a run")
    return replace(RunRecord.from_json(copy), plan_sha256=hashlib.sha256(data).hexdigest())


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
