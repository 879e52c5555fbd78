"""Checks the rows of a data object against each other and against the model, whole columns at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.dataset.provenance import RunRecord
from pipeline.verify.findings import Difference, Findings


def clip_indices(shard_id: str, ids: Iterable[str]) -> np.ndarray:
    """The position in the shard of each id, int64; -1 if it is not an id of this shard."""
    pattern = re.compile(rf"{re.escape(shard_id)}-(\d{{8,18}})")
    matches = (pattern.fullmatch(clip_id) for clip_id in ids)
    return np.array([int(match[1]) if match else -1 for match in matches], np.int64)


class RowChecks:
    """Checks the batches of a data object, given in order. Memory is that of a batch and eight bytes per row."""

    def __init__(self, shard_id: str, uri: str, record: RunRecord, findings: Findings, remedy: str) -> None:
        self._shard_id, self._uri, self._findings, self._remedy = shard_id, uri, findings, remedy
        self._model = record.model
        self._codebooks = dict(zip(record.code_columns.names, record.codebooks, strict=True))
        self._scales = record.code_columns.scales
        signals = schema.signal_definitions(record.signals)
        self._measures = [column["name"] for column in signals if column["type"] == "float32"]
        self._indices: list[np.ndarray] = []
        self._last = -1
        self.rows = self.frames = self.samples = 0

    def indices(self) -> np.ndarray:
        """Positions of the rows so far."""
        return np.concatenate([np.empty(0, np.int64), *self._indices])

    def add(self, batch: pa.RecordBatch) -> None:
        for check in ("ids", "lengths", "codes", "values"):
            self._findings.look(check, batch.num_rows)
        self._check_ids(batch)
        self._check_lengths(batch)
        self._check_codes(batch)
        self._check_values(batch)
        self.rows += batch.num_rows

    def _check_ids(self, batch: pa.RecordBatch) -> None:
        indices = clip_indices(self._shard_id, batch["id"].to_pylist())
        self._wrong("ids", batch, "id", indices < 0, "no id of this shard")
        before = np.concatenate([[self._last], indices[:-1]])
        self._wrong("ids", batch, "id", (indices >= 0) & (indices <= before), "twice, or not in source order")
        self._indices.append(indices[indices >= 0])
        self._last = int(indices[-1]) if len(indices) else self._last

    def _check_lengths(self, batch: pa.RecordBatch) -> None:
        frames, samples, rate = (_numbers(batch, name) for name in ("num_frames", "num_samples", "sample_rate"))
        self.frames += int(frames.sum())
        self.samples += int(samples.sum())
        wanted = self._codes(samples)
        impossible = (samples < 1) | (frames != wanted.max(axis=0, initial=0))
        self._wrong("lengths", batch, "num_frames", impossible, "not num_samples in whole frames")
        self._wrong("lengths", batch, "sample_rate", rate != self._model.sample_rate, "not the model's rate")
        seconds = samples / self._model.sample_rate
        self._wrong(
            "lengths", batch, "duration", _numbers(batch, "duration") != seconds, "not num_samples / sample_rate"
        )
        for layer, codes in zip(self._codebooks, wanted, strict=True):
            self._wrong("lengths", batch, layer, _lengths(batch, layer) != codes, "not num_frames codes")
        if self._scales:
            chunking = self._model.codec.chunking
            chunks = 1 if chunking is None else -(-samples // chunking.stride)
            wrong = _lengths(batch, schema.SCALES) != chunks
            self._wrong("lengths", batch, schema.SCALES, wrong, "not one for each chunk")

    def _codes(self, samples: np.ndarray) -> np.ndarray:
        """How many codes there must be: (codebooks, rows)."""
        codec = self._model.codec
        if codec.chunking is None:
            lengths = codec.lengths(samples)  # type: ignore[arg-type]
        else:
            lengths = tuple(np.array([codec.lengths(int(number)) for number in samples]).reshape(len(samples), -1).T)
        return np.stack(lengths[: len(self._codebooks)])

    def _check_codes(self, batch: pa.RecordBatch) -> None:
        for layer, codebook in self._codebooks.items():
            codes = batch[layer].flatten().to_numpy(zero_copy_only=False)
            outside = (codes < 0) | (codes >= codebook.size)
            if outside.any():
                rows = np.zeros(batch.num_rows, bool)
                rows[pc.list_parent_indices(batch[layer]).to_numpy(zero_copy_only=False)[outside]] = True
                what = f"holds {codes[outside][0]}, and codes go from 0 to {codebook.size - 1}"
                self._wrong("codes", batch, layer, rows, what)

    def _check_values(self, batch: pa.RecordBatch) -> None:
        peak, rms = _numbers(batch, "peak"), _numbers(batch, "rms")
        self._wrong("values", batch, "peak", ~((peak >= 0) & np.isfinite(peak)), "not a level")
        # Both are float32, so for a square wave they may differ by rounding.
        self._wrong("values", batch, "rms", ~((rms >= 0) & (rms <= peak * 1.0001)), "not between 0 and the peak")
        for name in ("clipping", "silence"):
            share = _numbers(batch, name)
            self._wrong("values", batch, name, ~((share >= 0) & (share <= 1)), "not a fraction")
        for name in self._measures:  # null where there is none
            value = _numbers(batch, name)
            self._wrong("values", batch, name, (value < 0) | np.isinf(value), "not a measure")
        matches = pc.match_substring_regex(batch["audio_xxh3"], "^[0-9a-f]{32}$").to_numpy(zero_copy_only=False)
        self._wrong("values", batch, "audio_xxh3", ~matches.astype(bool), "not 32 hexadecimal digits")
        objects = np.array([_is_object(text) for text in batch["metadata"].to_pylist()], bool)
        self._wrong("values", batch, "metadata", ~objects, "not a JSON object")

    def _wrong(self, check: str, batch: pa.RecordBatch, column: str, rows: np.ndarray, what: str) -> None:
        count = int(np.count_nonzero(rows))
        if not count:
            return
        first = int(np.argmax(rows))
        value = batch[column][first].as_py()
        shown = "" if isinstance(value, list) else f"{str(value)[:80]!r} is "
        message = f"{shown}{what}" + (f", and {count - 1} more rows of this batch" if count > 1 else "")
        place = {"uri": self._uri, "shard_id": self._shard_id, "clip_id": batch["id"][first].as_py(), "column": column}
        self._findings.differ(Difference(check=check, message=message, remedy=self._remedy, **place), count)


def _lengths(batch: pa.RecordBatch, name: str) -> np.ndarray:
    lengths: np.ndarray = pc.list_value_length(batch[name]).to_numpy(zero_copy_only=False)
    return lengths


def _numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    values: np.ndarray = batch[name].to_numpy(zero_copy_only=False)
    return values


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
