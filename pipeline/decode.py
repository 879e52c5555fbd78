"""Rows of an output back into sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from moss_tok import MossAudioTokenizerModel
from pipeline import schema, storage
from pipeline.items import ShardSpec
from pipeline.output import Output
from pipeline.provenance import RunRecord
from pipeline.table import read_table


class RowNotFound(LookupError):
    """The output has no such row; the message says what it has instead."""


@dataclass(frozen=True, slots=True)
class Row:
    """The codes of one clip."""

    codes: np.ndarray
    """int16 (num_quantizers, frames)."""
    num_samples: int
    sample_rate: int


def find_row(output: Output, clip_id: str, num_quantizers: int | None = None) -> Row:
    """Read the first `num_quantizers` layers (default: all) of the row with this id. Raises RowNotFound, ValueError."""
    layers = output.record.num_quantizers if num_quantizers is None else num_quantizers
    if not 1 <= layers <= output.record.num_quantizers:
        raise ValueError(f"{layers} quantizers: the output has 1 to {output.record.num_quantizers}")
    spec = next((spec for spec in output.specs if spec.shard_id == clip_id.rpartition("-")[0]), None)
    if spec is None:
        raise RowNotFound(
            f"{clip_id}: no shard of this id: ids are those of column id, such as 0123456789abcdef-00000000"
        )
    if spec.shard_id not in output.done:
        raise RowNotFound(f"{clip_id}: its shard is not committed yet: run tokenize again to finish it")
    columns = ["id", "num_samples", "sample_rate", *(schema.layer_column(layer) for layer in range(layers))]
    with storage.open_read(output.layout.data(spec)) as stream:
        rows = read_table(stream, columns).filter(pc.field("id") == clip_id).to_pylist()
    if not rows:
        raise RowNotFound(f"{clip_id}: not among the rows of its shard{_why_not(output, spec, clip_id)}")
    return _row(rows[0], layers)


def load_decoder(record: RunRecord, name: str | None = None) -> MossAudioTokenizerModel:
    """The decoder of the model that made an output, from where the record says, or from `name`.

    Raises ValueError where other weights are there now, and OSError or ValueError where none can be had.
    """
    revision = None if name else record.model.revision
    name = name or record.model.name
    model = MossAudioTokenizerModel.from_pretrained(name, revision=revision, parts="decoder").eval()
    if model.weights_sha256 != record.model.weights_sha256:
        made_by = record.model.name
        raise ValueError(f"{name} has other weights than {made_by}, which made the output: pass that with --model")
    return model


def decode_row(row: Row, model: MossAudioTokenizerModel) -> np.ndarray:
    """float32 (channels, num_samples): exactly as long as the clip that was encoded."""
    decoded = model.batch_decode([torch.from_numpy(row.codes.astype(np.int64))])
    return np.ascontiguousarray(decoded.audio[0, :, : row.num_samples].float().cpu().numpy())


def _row(fields: dict[str, Any], layers: int) -> Row:
    codes = np.array([fields[schema.layer_column(layer)] for layer in range(layers)], dtype=np.int16)
    return Row(codes, fields["num_samples"], fields["sample_rate"])


def _why_not(output: Output, spec: ShardSpec, clip_id: str) -> str:
    uri = output.layout.rejects(spec)
    if storage.stat(uri) is None:
        return ""
    with storage.open_read(uri) as stream:
        rejects = read_table(stream).filter(pc.field("id") == clip_id).to_pylist()
    return f": it was rejected ({rejects[0]['reason']}): {rejects[0]['message']}" if rejects else ""
