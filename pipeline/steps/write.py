"""An Arrow table into the bytes of one Parquet object. The same table and metadata give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_checksum import BLANK, CHECKSUM, insert_checksum


def to_parquet(table: pa.Table, metadata: Mapping[str, str], row_group_rows: int) -> bytes:
    """`table` as Parquet with `metadata` in its footer. Nothing else is written that depends on time, host or path.

    A code takes about 10.1 bits (dictionary of 1,024 entries and zstd). Page checksums let readers notice a flipped
    bit, and the file carries its own SHA-256 (see pipeline/parquet_checksum.py). The object is whole in memory before
    any of it is published, because a writer that an error closes leaves a short file that reads without an error.
    """
    table = table.replace_schema_metadata(dict(sorted(metadata.items())))
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", use_dictionary=True, write_page_checksum=True
    ) as writer:
        if table.num_rows:  # `datasets` cannot read a row group without rows, and one such file would fail the dataset
            writer.write_table(table, row_group_size=row_group_rows)
        # In the metadata of the file alone: those of an Arrow schema are written twice.
        writer.add_key_value_metadata({CHECKSUM: BLANK})
    return insert_checksum(sink.getvalue())
