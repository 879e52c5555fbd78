"""Rows of Arrow batches into clips, for Parquet and Arrow files alike."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.input_config import InputConfig
from pipeline.items import Origin, RawClip, Reject
from pipeline.steps.columns import find_audio_column
from pipeline.steps.read.fields import clean, describe, read_reject


class SourceError(ValueError):
    """The object is sound but does not hold audio where the configuration says. The message names both."""


class RowReader:
    """Turns the rows of one object into clips."""

    def __init__(self, schema: pa.Schema, uri: str, config: InputConfig, first_row: int = 0) -> None:
        """`first_row` is the number, in the object, of the shard's first row. Raises SourceError without audio."""
        self._column = audio_column(schema, uri, config)
        self._source = clean(uri)
        self._config = config
        self._first_row = first_row

    def clip(self, batch: pa.RecordBatch, position: int, row: int) -> RawClip | Reject:
        """The clip at `position` in a batch, which is number `row` in the object.

        Its key is its `id`, or that number where it has none.
        """
        fields = {name: _value(cells[position]) for name, cells in zip(batch.schema.names, batch.columns, strict=True)}
        key = fields.get("id")
        origin = self._origin(row, clean(str(row if key is None or key == "" else key)))
        return _clip(fields, origin, self._column, self._config)

    def lost(self, row: int, message: str) -> Reject:
        """The reject of a row that cannot be read."""
        return read_reject(self._origin(row, str(row)), "damaged_source", message)

    def _origin(self, row: int, key: str) -> Origin:
        return Origin(index=row - self._first_row, source=self._source, key=key)


def audio_column(schema: pa.Schema, uri: str, config: InputConfig) -> str:
    """Name of the column that holds audio: binary, or struct{bytes, path}. Raises SourceError if there is none."""
    name = find_audio_column(schema.names, config.audio_column)
    if name is None:
        raise SourceError(
            f"{uri}: no column {config.audio_column or 'audio'} among {', '.join(schema.names)}: set input.audio_column"
        )
    if (count := schema.names.count(name)) > 1:
        raise SourceError(f"{uri}: {count} columns are named {name}: set input.audio_column")
    kind = schema.field(name).type
    holder = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(holder) or pa.types.is_large_binary(holder) or pa.types.is_binary_view(holder)):
        raise SourceError(f"{uri}: column {name} is {kind}; audio is binary or struct<bytes: binary, path: string>")
    return name


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except Exception:  # dates beyond Python's, unknown time zones, …: any type of error, for one field
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
