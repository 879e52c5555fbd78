"""Writes and reads files of sequences: Parquet, or arrays that can be mapped into memory, each with an index beside it.

docs/exports.md describes the files. Both kinds have the layout of their documents as JSON under `moss_tok.tokens` in
the metadata of a Parquet file, so a file says itself how to read it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.export.tokens.documents import Content, DocumentLayout
from pipeline.export.tokens.packing import Packed, unpack
from pipeline.parquet import read_table

LAYOUT = b"moss_tok.tokens"
_SEQUENCES = pa.schema(
    [
        pa.field("tokens", pa.list_(pa.int32()), False),
        pa.field("ids", pa.list_(pa.string()), False),
        pa.field("lengths", pa.list_(pa.int32()), False),
    ]
)
_PIECES = pa.schema(
    [
        pa.field("sequence", pa.int32(), False),
        pa.field("id", pa.string(), False),
        pa.field("start", pa.int64(), False),
        pa.field("length", pa.int32(), False),
    ]
)


def parquet_files(stem: str, sequences: Iterable[Packed], layout: DocumentLayout) -> Mapping[str, bytes]:
    """One row per sequence: `tokens` step by step with all streams of a step, `ids` and `lengths` of its clips."""
    rows = [
        {
            "tokens": _steps(sequence, layout).reshape(-1).astype(np.int32),
            "ids": sequence.ids,
            "lengths": sequence.lengths,
        }
        for sequence in sequences
    ]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in _SEQUENCES]
    return {f"{stem}.parquet": _parquet(pa.Table.from_arrays(columns, schema=_SEQUENCES), layout)}


def npy_files(stem: str, sequences: Iterable[Packed], layout: DocumentLayout) -> Mapping[str, bytes]:
    """One array with the steps of all sequences end to end, and an index with a row for each piece of a clip."""
    dtype = np.uint16 if layout.largest_id < 2**16 else np.uint32
    steps: list[np.ndarray] = []
    pieces = []
    start = 0
    for number, sequence in enumerate(sequences):
        at = start
        for clip_id, length in zip(sequence.ids, sequence.lengths, strict=True):
            pieces.append({"sequence": number, "id": clip_id, "start": at, "length": length})
            at += length
        steps.append(_steps(sequence, layout).astype(dtype))
        start += len(steps[-1])
    array = np.concatenate(steps)
    sink = io.BytesIO()
    np.save(sink, array[:, 0] if layout.streams == 1 else array, allow_pickle=False)
    index = pa.Table.from_pylist(pieces, schema=_PIECES)
    return {f"{stem}.npy": sink.getvalue(), f"{stem}.index.parquet": _parquet(index, layout)}


def read_documents(folder: str) -> Iterator[tuple[str, Content]]:
    """Yields the id and the content of every document in the folder of a split.

    Raises FileNotFoundError for a folder without sequences, and ValueError for files that are not sequences.
    """
    uris = [info.uri for info in storage.list_objects(folder) if info.uri.endswith(".parquet")]
    if not uris:
        raise FileNotFoundError(f"{folder}: no token sequences: name the folder of a split")
    for uri in uris:
        table = read_table(pa.BufferReader(storage.read_bytes(uri)))
        layout = DocumentLayout.model_validate_json((table.schema.metadata or {}).get(LAYOUT, b""))
        stem = uri.removesuffix(".index.parquet")
        sequences = _from_parquet(table, layout) if stem == uri else _from_npy(table, layout, f"{stem}.npy")
        for clip_id, document in unpack(sequences):
            yield clip_id, layout.content(document)


def _from_parquet(table: pa.Table, layout: DocumentLayout) -> Iterator[Packed]:
    for batch in table.to_batches(max_chunksize=256):
        tokens = batch.column("tokens")
        for number, (ids, lengths) in enumerate(
            zip(batch["ids"].to_pylist(), batch["lengths"].to_pylist(), strict=True)
        ):
            steps = tokens[number].values.to_numpy().reshape(-1, layout.streams)
            yield Packed(tuple(ids), tuple(np.split(steps[: sum(lengths)], np.cumsum(lengths)[:-1])))


def _from_npy(index: pa.Table, layout: DocumentLayout, uri: str) -> Iterator[Packed]:
    array = np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False).reshape(-1, layout.streams)
    for piece in index.to_pylist():
        yield Packed((piece["id"],), (array[piece["start"] : piece["start"] + piece["length"]],))


def _steps(sequence: Packed, layout: DocumentLayout) -> np.ndarray:
    padding = np.full(layout.streams, layout.audio_pad, np.int64)
    padding[0] = layout.pad or 0
    return sequence.steps(layout.sequence_length, padding)


def _parquet(table: pa.Table, layout: DocumentLayout) -> bytes:
    sink = io.BytesIO()
    table = table.replace_schema_metadata({LAYOUT: layout.model_dump_json()})
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()
