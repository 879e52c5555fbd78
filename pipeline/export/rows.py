"""Reads the committed rows of one shard as a stream: the columns that exports need, and the first k layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.dataset.dataset import Output
from pipeline.dataset.expression import condition, expression
from pipeline.dataset.provenance import RunRecord
from pipeline.items import ShardSpec, as_matrix
from pipeline.parquet import read_columns

_COLUMNS = (
    *("id", "source", "key", "start", "num_frames", "num_samples", "sample_rate", "clipping", "silence", "audio_xxh3"),
    *("text", "language", "speaker_id", "labels", "metadata"),
)
_PART = re.compile(r"#t=[\d.e+]+,[\d.e+]+$")
_OWN_FILE = ("files", "list")  # formats in which a clip is an audio file


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRow:
    """One clip; the definitions are those of schemas/codes.v2.yaml."""

    id: str
    split: str
    audio: str
    """Where the clip's sound is: the URI of its file, or `URI#key` for a clip inside a tar or a Parquet file."""
    start: float | None
    """Seconds of the file at which the clip begins; None if the clip is the whole file."""
    num_frames: int
    num_samples: int
    sample_rate: int
    clipping: float
    silence: float
    audio_xxh3: str
    text: str | None
    language: str | None
    speaker_id: str | None
    labels: list[str] | None
    metadata: str
    channel: str = ""
    """&channel=N if the clip is one channel of its file."""
    codes: np.ndarray
    """(num_quantizers, frames), see `as_matrix`; no layers where none were asked for."""
    where: bool | None = True
    """What a condition says of the row; None where a value that it needs is missing."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_samples / self.sample_rate

    @property
    def source_metadata(self) -> dict[str, Any]:
        """What else the source says of the clip: `metadata`, which is JSON."""
        metadata: dict[str, Any] = json.loads(self.metadata)
        return metadata

    def group(self, by: str) -> str | None:
        """What the clip has in common with others: with `source` its file, else a field of its metadata."""
        value = self.audio if by == "source" else self.source_metadata.get(by)
        return None if value is None else str(value)

    @property
    def address(self) -> str:
        """`audio`; if the clip is a part of its file, with a media fragment in seconds: #t=1.5,4."""
        if self.start is None:
            return self.audio
        return f"{self.audio}#t={self.start:.10g},{self.start + self.duration:.10g}{self.channel}"


def read_rows(output: Output, spec: ShardSpec, num_quantizers: int, where: str | None = None) -> Iterator[ExportRow]:
    """The rows of a committed shard in source order, with the first `num_quantizers` layers; 0 reads no codes.

    `where` is a condition that each row is told of, see `pipeline.dataset.expression`.

    Holds one batch of rows at a time. Raises FileNotFoundError for a shard whose data is gone, and ValueError (with its
    URI) for one that is damaged.
    """
    layers = [schema.layer_column(layer) for layer in range(num_quantizers)]
    uri = output.layout.data(spec)
    info = output.layout.stat_committed(uri)
    known = output.record.value_columns
    columns = [name for name in _COLUMNS if name in known]
    asked = expression(where, known).columns if where else []
    for batch in read_columns(info, list(dict.fromkeys([*columns, *asked, *layers]))):
        holds = condition(where, batch, known).to_pylist() if where else [True] * batch.num_rows
        fields: list[dict[str, Any]] = [{"start": None} | row for row in batch.select(columns).to_pylist()]
        frames = np.array([row["num_frames"] for row in fields], np.int64)
        clips = _codes(batch, layers, frames, uri, output.record)
        for row, codes, kept in zip(fields, clips, holds, strict=True):
            source, (name, channel) = row.pop("source"), _name_and_channel(row.pop("key"), row["start"])
            audio = source if spec.format in _OWN_FILE else f"{source}#{name}"
            yield ExportRow(split=spec.split, audio=audio, channel=channel, codes=codes, where=kept, **row)


def _name_and_channel(key: str, start: float | None) -> tuple[str, str]:
    """The key of the whole recording inside its source, and `&channel=N` of one of its channels."""
    if start is None:
        return key, ""
    name, mark, channel = key.rpartition("channel=")
    whole = name[:-1] if mark else key
    return _PART.sub("", whole), mark and f"&channel={channel}"


def _codes(
    batch: pa.RecordBatch, layers: list[str], frames: np.ndarray, uri: str, record: RunRecord
) -> list[np.ndarray]:
    """(num_quantizers, frames) of each row."""
    if not layers:
        return [np.empty((0, count), np.int16) for count in frames]
    columns = [batch.column(name) for name in layers]
    if not record.model.codec.single_rate:
        return [as_matrix(tuple(column[row].values.to_numpy() for column in columns)) for row in range(batch.num_rows)]
    for name, column in zip(layers, columns, strict=True):
        if not np.array_equal(np.diff(column.offsets.to_numpy()), frames):
            raise ValueError(f"{uri}: {name} has not as many codes as num_frames says: see moss-tok verify")
    flat = np.stack([column.flatten().to_numpy() for column in columns])
    stops = np.cumsum(frames)
    return [flat[:, start:stop] for start, stop in zip(stops - frames, stops, strict=True)]
