"""Parquet with audio bytes in a column: binary, or struct{bytes, path} as Hugging Face Datasets writes it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.read.fields import clean, describe, find_audio_column, read_reject
from pipeline.storage import StorageError

BATCH_ROWS = 16  # rows hold whole audio files: a batch is megabytes already
MAX_GROUP_ROWS = 10_000_000  # a footer that declares more in one row group lies


class SourceError(ValueError):
    """The object is sound but does not hold audio where the configuration says; the message names both."""


def read_parquet(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each row of the shard's row groups; its key is its `id`, else its number in the file. Raises SourceError."""
    with storage.open_read(spec.uri) as stream:
        try:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            schema, rows = file.schema_arrow, _rows_before_groups(file.metadata)
        except StorageError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            origin = Origin(index=0, source=clean(spec.uri), key="")
            yield read_reject(origin, "damaged_source", f"not Parquet: {error}")
            return
        yield from _read_rows(file, spec, rows, _audio_column(schema, spec.uri, config), config)


def _rows_before_groups(footer: pq.FileMetaData) -> list[int]:
    """Number of the first row of each row group, and of all rows."""
    counts = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    if any(not 0 <= count <= MAX_GROUP_ROWS for count in counts):
        raise ValueError(f"a row group of {max(counts, key=abs)} rows, and {MAX_GROUP_ROWS} are allowed")
    return [0, *accumulate(counts)]


def _audio_column(schema: pa.Schema, uri: str, config: InputConfig) -> str:
    name = find_audio_column(schema.names, config.audio_column)
    if name is None:
        raise SourceError(
            f"{uri}: no column {config.audio_column or 'audio'} among {', '.join(schema.names)}: set input.audio_column"
        )
    if (count := schema.names.count(name)) > 1:
        raise SourceError(f"{uri}: {count} columns are named {name}: set input.audio_column")
    kind = schema.field(name).type
    holder = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(holder) or pa.types.is_large_binary(holder)):
        raise SourceError(f"{uri}: column {name} is {kind}; audio is binary or struct<bytes: binary, path: string>")
    return name


def _read_rows(
    file: pq.ParquetFile, spec: ShardSpec, rows: list[int], column: str, config: InputConfig
) -> Iterator[RawClip | Reject]:
    stop = len(rows) - 1 if spec.stop is None else spec.stop
    first = row = rows[spec.start]
    source = clean(spec.uri)
    for group in range(spec.start, stop):
        trouble = "holds fewer rows than the footer says"
        try:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                for position in range(min(batch.num_rows, rows[group + 1] - row)):
                    fields = {
                        name: _value(cells[position])
                        for name, cells in zip(batch.schema.names, batch.columns, strict=True)
                    }
                    key = fields.get("id")
                    key = clean(str(row if key is None or key == "" else key))
                    yield _clip(fields, Origin(index=row - first, source=source, key=key), column, config)
                    row += 1
        except StorageError:
            raise
        except (pa.ArrowException, OSError) as error:
            trouble = f"cannot be read on: {error}"
        for lost in range(row, rows[group + 1]):
            origin = Origin(index=lost - first, source=source, key=str(lost))
            yield read_reject(origin, "damaged_source", f"row group {group} {trouble}")
        row = rows[group + 1]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except Exception:  # dates beyond Python's, unknown time zones, …: each raises what it likes, and it is one field
        if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type):
            return scalar.as_buffer().to_pybytes().decode("utf-8", "replace")
        return f"left out: Python cannot hold this {scalar.type}"


def _clip(fields: dict[str, Any], origin: Origin, column: str, config: InputConfig) -> RawClip | Reject:
    audio = fields.pop(column)
    data = audio.get("bytes") if isinstance(audio, dict) else audio
    path = audio.get("path") if isinstance(audio, dict) else None
    if data is None:
        where = f"; it points to {path}, which is not part of the dataset" if path else ""
        return read_reject(origin, "no_audio", f"the row holds no audio bytes{where}")
    if len(data) > config.max_clip_bytes:
        message = f"{len(data)} bytes, and {config.max_clip_bytes} are allowed: input.max_clip_bytes"
        return read_reject(origin, "too_many_bytes", message)
    if path:
        fields.setdefault("path", path)
    return RawClip(origin=origin, name=path or "", data=data, description=describe(fields, config))
