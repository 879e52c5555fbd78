"""Parquet with audio bytes in a column: binary, or struct{bytes, path} as Hugging Face Datasets writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.read.fields import clean, find_audio_column, read_reject, take_text
from pipeline.storage import StorageError

BATCH_ROWS = 16  # rows hold whole audio files: a batch is megabytes already


class SourceError(ValueError):
    """The object is sound but does not hold audio where the configuration says; the message names both."""


def read_parquet(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each row of the shard's row groups; its key is its `id`, else its number in the file. Raises SourceError."""
    with storage.open_read(spec.uri) as stream:
        try:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, StorageError):
                raise
            yield read_reject(Origin(index=0, source=spec.uri, key=""), "damaged_source", f"not Parquet: {error}")
            return
        column = _audio_column(file.schema_arrow, spec.uri, config)
        yield from _read_rows(file, spec, column, config)


def _audio_column(schema: pa.Schema, uri: str, config: InputConfig) -> str:
    name = find_audio_column(schema.names, config.audio_column)
    if name is None:
        raise SourceError(
            f"{uri}: no column {config.audio_column or 'audio'} among {', '.join(schema.names)}: set input.audio_column"
        )
    kind = schema.field(name).type
    holder = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(holder) or pa.types.is_large_binary(holder)):
        raise SourceError(f"{uri}: column {name} is {kind}; audio is binary or struct<bytes: binary, path: string>")
    return name


def _read_rows(file: pq.ParquetFile, spec: ShardSpec, column: str, config: InputConfig) -> Iterator[RawClip | Reject]:
    footer = file.metadata
    stop = footer.num_row_groups if spec.stop is None else spec.stop
    row = sum(footer.row_group(group).num_rows for group in range(spec.start))
    index = 0
    for group in range(spec.start, stop):
        group_end = row + footer.row_group(group).num_rows
        try:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                for fields in batch.to_pylist():
                    key = clean(str(fields.get("id") or row))
                    yield _clip(fields, Origin(index=index, source=spec.uri, key=key), column, config)
                    index, row = index + 1, row + 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, StorageError):
                raise
            while row < group_end:
                origin = Origin(index=index, source=spec.uri, key=str(row))
                yield read_reject(origin, "damaged_source", f"row group {group} cannot be read on: {error}")
                index, row = index + 1, row + 1


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
    text, metadata = take_text(fields, config.text_column)
    if path:
        metadata["path"] = path
    return RawClip(origin=origin, name=path or "", data=data, text=text, metadata=metadata)
