"""Codes and rejects into Arrow tables in source order, with the schemas in `schemas/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.items import CodedClip, Origin, Reject, num_frames
from pipeline.schema import CodeColumns


def clip_id(shard_id: str, origin: Origin) -> str:
    """The id of a row: the id of its shard and its position there. So the id alone tells which file holds the row."""
    return f"{shard_id}-{origin.index:08d}"


def codes_table(shard_id: str, coded: Sequence[CodedClip], codes: CodeColumns, sample_rate: int) -> pa.Table:
    """One row per clip, sorted by position in the source, with a list of codes for each codebook."""
    coded = sorted(coded, key=lambda clip: clip.info.origin.index)
    rows = [_row(shard_id, clip, sample_rate) for clip in coded]
    table_schema = schema.codes_schema(codes)
    columns = [pa.array([row[name] for row in rows], table_schema.field(name).type) for name in schema.clip_columns()]
    for layer, name in enumerate(codes.names):
        columns.append(_lists([clip.codes[layer] for clip in coded], table_schema.field(name).type))
    if codes.scales:
        columns.append(_lists([_scales(clip) for clip in coded], table_schema.field(schema.SCALES).type))
    if codes.latents:
        columns.append(_matrices([_latents(clip) for clip in coded], table_schema.field(schema.LATENTS).type))
    for signal in schema.signal_definitions(codes.signals):
        values = [clip.info.signals.get(signal["name"]) for clip in coded]
        columns.append(pa.array(values, table_schema.field(signal["name"]).type))
    return pa.Table.from_arrays(columns, schema=table_schema)


def _matrices(values: Sequence[np.ndarray], kind: pa.ListType) -> pa.ListArray:
    """A list of rows for each matrix."""
    rows = [row for matrix in values for row in matrix]
    offsets = pa.array(np.concatenate([[0], np.cumsum([len(matrix) for matrix in values])]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, _lists(rows, kind.value_type), type=kind)


def _latents(clip: CodedClip) -> np.ndarray:
    if clip.latents is None:
        raise ValueError("a clip without latents, of a run that stores them")
    return clip.latents


def _lists(values: Sequence[np.ndarray], kind: pa.ListType) -> pa.ListArray:
    lengths = [len(each) for each in values]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int32))
    dtype = kind.value_type.to_pandas_dtype()
    joined = pa.array(np.concatenate([np.empty(0, dtype), *values])).cast(kind.value_type)  # which loses no value
    return pa.ListArray.from_arrays(offsets, joined, type=kind)


def _scales(clip: CodedClip) -> np.ndarray:
    if clip.scales is None:
        raise ValueError("a clip without scales, of a codec that needs them to decode")
    return clip.scales


def rejects_table(shard_id: str, rejects: Sequence[Reject]) -> pa.Table:
    """One row per reject, sorted by position in the source."""
    rows = [
        {
            "id": clip_id(shard_id, reject.origin),
            "source": reject.origin.source,
            "key": reject.origin.key,
            "stage": reject.stage,
            "reason": reject.reason,
            "message": reject.message,
        }
        for reject in sorted(rejects, key=lambda reject: reject.origin.index)
    ]
    return pa.Table.from_pylist(rows, schema=schema.rejects_schema())


def _row(shard_id: str, clip: CodedClip, sample_rate: int) -> dict[str, Any]:
    info = clip.info
    description = info.description
    return {
        "id": clip_id(shard_id, info.origin),
        "source": info.origin.source,
        "key": info.origin.key,
        "start": None if info.origin.segment is None else info.origin.segment.start,
        "num_frames": num_frames(clip.codes),
        "num_samples": info.num_samples,
        "sample_rate": sample_rate,
        "duration": info.num_samples / sample_rate,
        "source_format": info.source_format,
        "source_codec": info.source_codec,
        "source_sample_rate": info.source_sample_rate,
        "source_channels": info.source_channels,
        "peak": info.peak,
        "rms": info.rms,
        "clipping": info.clipping,
        "silence": info.silence,
        "gain_db": info.gain_db,
        "audio_xxh3": info.audio_xxh3,
        "text": description.text,
        "language": description.language,
        "speaker_id": description.speaker_id,
        "labels": description.labels,
        "metadata": _json(description.metadata),
    }


def _json(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False, allow_nan=False)
