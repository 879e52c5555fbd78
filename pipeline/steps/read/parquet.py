"""Parquet with audio bytes in a column: binary, or struct{bytes, path} as Hugging Face Datasets writes it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.steps.read.fields import clean, read_reject
from pipeline.steps.read.rows import RowReader

BATCH_ROWS = 16  # rows hold whole audio files: a batch is megabytes already
BATCH_BYTES = 2**28  # of a batch, if each row is as large as its row group, as with a dictionary it can be
MAX_GROUP_ROWS = 10_000_000  # a footer that declares more in one row group is wrong


def read_parquet(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each row of the shard's row groups, with a reject for each row that is damaged.

    Raises SourceError if the file has no audio column.
    """
    with storage.open_read(spec.uri) as stream:
        try:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            schema, rows = file.schema_arrow, _rows_before_groups(file.metadata)
        except (pa.ArrowException, OSError, ValueError) as error:
            origin = Origin(index=0, source=clean(spec.uri), key="")
            yield read_reject(origin, "damaged_source", f"not Parquet: {error}")
            return
        reader = RowReader(schema, spec.uri, config, first_row=rows[spec.start])
        yield from _read_rows(file, spec, rows, reader)


def _rows_before_groups(footer: pq.FileMetaData) -> list[int]:
    """Number of the first row of each row group, and at the end the number of all rows."""
    counts = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    if any(not 0 <= count <= MAX_GROUP_ROWS for count in counts):
        raise ValueError(f"a row group of {max(counts, key=abs)} rows, and {MAX_GROUP_ROWS} are allowed")
    return [0, *accumulate(counts)]


def _read_rows(file: pq.ParquetFile, spec: ShardSpec, rows: list[int], reader: RowReader) -> Iterator[RawClip | Reject]:
    stop = len(rows) - 1 if spec.stop is None else spec.stop
    row = rows[spec.start]
    for group in range(spec.start, stop):
        trouble = "holds fewer rows than the footer says"
        batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, file.metadata.row_group(group).total_byte_size)))
        try:
            for batch in file.iter_batches(batch_rows, row_groups=[group], use_threads=False):
                for position in range(min(batch.num_rows, rows[group + 1] - row)):
                    yield reader.clip(batch, position, row)
                    row += 1
        except (pa.ArrowException, OSError) as error:
            trouble = f"cannot be read on: {error}"
        for lost in range(row, rows[group + 1]):
            yield reader.lost(lost, f"row group {group} {trouble}")
        row = rows[group + 1]
