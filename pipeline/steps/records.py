"""Codes and rejects into Arrow tables in source order, with the schemas in `schemas/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.items import CodedClip, Origin, Reject


def clip_id(shard_id: str, origin: Origin) -> str:
    """The id of a row: the id of its shard and its position there. So the id alone tells which file holds the row."""
    return f"{shard_id}-{origin.index:08d}"


def codes_table(
    shard_id: str, coded: Sequence[CodedClip], num_quantizers: int, codebook_size: int, sample_rate: int
) -> pa.Table:
    """One row per clip, sorted by position in the source, with one `list<int16>` column per RVQ layer."""
    coded = sorted(coded, key=lambda clip: clip.info.origin.index)
    rows = [_row(shard_id, clip, sample_rate) for clip in coded]
    table_schema = schema.codes_schema(num_quantizers, codebook_size)
    frames = [clip.codes.shape[1] for clip in coded]
    offsets = pa.array(np.concatenate([[0], np.cumsum(frames, dtype=np.int64)]).astype(np.int32))
    columns = [pa.array([row[name] for row in rows], table_schema.field(name).type) for name in schema.clip_columns()]
    for layer in range(num_quantizers):
        values = np.concatenate([np.empty(0, np.int16), *(clip.codes[layer] for clip in coded)])
        kind = table_schema.field(schema.layer_column(layer)).type
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(values, pa.int16()), type=kind))
    return pa.Table.from_arrays(columns, schema=table_schema)


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
        "num_frames": clip.codes.shape[1],
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
