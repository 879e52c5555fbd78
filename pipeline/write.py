"""Arrow tables into one Parquet object, complete or absent, and never over another."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.table import read_table

FINGERPRINT = "moss_tok.fingerprint"


class OutputConflict(RuntimeError):
    """Another job has published something else under this name; the message names both."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is published now."""

    size: int
    """Bytes."""
    sha256: str


def write_table(uri: str, table: pa.Table, metadata: Mapping[str, str], row_group_rows: int) -> Written:
    """Publish `table` at `uri` as Parquet with `metadata` in its footer, unless it is there already.

    The same table and metadata give the same bytes: no time, host or path is written. A code takes about 10.1 bits
    (dictionary of 1,024 entries and zstd), and page checksums let readers notice a flipped bit.

    What is there may come from a run that died before its manifest, or from a second job: it is kept if it was made
    with the same fingerprint and has as many rows. Raises OutputConflict if it was not.
    """
    table = table.replace_schema_metadata(dict(sorted(metadata.items())))
    sink = io.BytesIO()
    pq.write_table(
        table, sink, row_group_size=row_group_rows, compression="zstd", use_dictionary=True, write_page_checksum=True
    )
    data = sink.getvalue()
    if not storage.create(uri, data):
        data = _settle(uri, data, table.num_rows, metadata[FINGERPRINT])
    return Written(len(data), hashlib.sha256(data).hexdigest())


def _settle(uri: str, mine: bytes, rows: int, fingerprint: str) -> bytes:
    """The bytes that are there, if they are as good as mine."""
    there = storage.read_bytes(uri)
    if there == mine:
        return there
    try:
        table = read_table(pa.BufferReader(there))
        theirs = (table.schema.metadata or {}).get(FINGERPRINT.encode(), b"").decode()
    except (pa.ArrowException, OSError) as error:
        raise OutputConflict(f"{uri} is there and damaged ({error}): delete it, and run again") from error
    if (theirs, table.num_rows) != (fingerprint, rows):
        raise OutputConflict(
            f"{uri} is there with {table.num_rows} rows of fingerprint {theirs}, this run has {rows} of "
            f"{fingerprint}: two jobs with different settings write to one output"
        )
    return there
