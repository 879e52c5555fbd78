"""Reading Parquet: whole files, or some columns of an object without fetching the others.

Everything is read in the caller's thread. `pyarrow.parquet.read_table` reads ahead in Arrow's own threads, and one that
still holds a Python buffer when the interpreter ends aborts the process ("terminate called without an active
exception"): of 25 short commands, 14 did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.storage import ObjectInfo, PositionedIO

TAIL_BYTES = 32 * 2**10  # holds most footers: a second read is one more wait for the store
FOOTER_END = 8  # bytes: the footer's length and a magic word
GAP_BYTES = 64 * 2**10  # pages this close to each other are fetched as one range
BATCH_BYTES = 16 * 2**20  # of values in a batch


class DamagedTable(ValueError):
    """The object is not a sound Parquet file. The message names it and says what to do."""


def open_table(source: Any, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A Parquet file that is read in the caller's thread, with its page checksums verified. `footer` saves reading it
    again."""
    return pq.ParquetFile(source, metadata=footer, pre_buffer=False, page_checksum_verification=True)


def read_table(source: Any, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of the whole file, or of some of its columns."""
    return open_table(source).read(columns=columns, use_threads=False)


def read_columns(info: ObjectInfo, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of the object in order, a batch of about 16 MiB at a time, with the given columns in the given order.

    Only the footer and the pages of these columns leave the store, one row group at a time, page checksums verified.
    An object without rows gives one empty batch, so that the types of its columns are known.
    Raises DamagedTable, KeyError for a column that is not there, FileNotFoundError.
    """
    try:
        footer = _footer(info)
        names = footer.schema.to_arrow_schema().names
        if missing := [name for name in columns if name not in names]:
            raise KeyError(f"{info.uri}: no column {missing[0]}: it has {', '.join(names)}")
        if footer.num_rows == 0:
            kinds = footer.schema.to_arrow_schema()
            yield pa.RecordBatch.from_pylist([], pa.schema([kinds.field(name) for name in columns]))
            return
        for group in range(footer.num_row_groups):
            yield from _read_group(info, footer, group, list(columns))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, storage.DamagedObject) as error:  # Arrow has OSError for a wrong checksum
        raise DamagedTable(f"{info.uri}: damaged: {error}: see moss-tok verify") from error


def _footer(info: ObjectInfo) -> pq.FileMetaData:
    start = max(0, info.size - TAIL_BYTES)
    (tail,) = storage.read_ranges(info.uri, [(start, info.size)])
    length = int.from_bytes(tail[-FOOTER_END:-4], "little") + FOOTER_END
    if len(tail) < length <= info.size:
        (tail,) = storage.read_ranges(info.uri, [(info.size - length, info.size)])
    return pq.read_metadata(pa.BufferReader(tail))


def _read_group(info: ObjectInfo, footer: pq.FileMetaData, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    about = footer.row_group(group)
    chunks = [about.column(number) for number in range(about.num_columns)]
    wanted = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    ranges = _merged(sorted(_extent(chunk) for chunk in wanted))
    source = _Parts(info, ranges, storage.read_ranges(info.uri, ranges))
    unpacked = sum(chunk.total_uncompressed_size for chunk in wanted)
    rows = max(1, min(about.num_rows, BATCH_BYTES * about.num_rows // max(1, unpacked)))
    batches = open_table(pa.PythonFile(source, "r"), footer).iter_batches(
        rows, row_groups=[group], columns=columns, use_threads=False
    )
    for batch in batches:
        yield batch.select(columns)


def _extent(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size


def _merged(extents: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in extents:
        if merged and start - merged[-1][1] <= GAP_BYTES:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


class _Parts(PositionedIO):
    """A file of which only some ranges are held. Reading anything else raises DamagedObject."""

    def __init__(self, info: ObjectInfo, ranges: Sequence[tuple[int, int]], parts: Sequence[bytes]) -> None:
        super().__init__(info.size)
        self._parts = [(start, memoryview(part)) for (start, _), part in zip(ranges, parts, strict=True)]

    def readinto(self, buffer: Any) -> int:
        for start, part in self._parts:
            if start <= self._position < start + len(part):
                data = part[self._position - start :][: len(buffer)]
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
        raise storage.DamagedObject(f"a page begins at byte {self._position}, where its footer has none")
