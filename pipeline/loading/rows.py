"""Reads some rows of an output, by id or in a range. Only the columns and row groups that hold them are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema, storage
from pipeline.dataset.dataset import Output
from pipeline.dataset.manifest import read_manifest
from pipeline.items import Codes, ShardSpec, join_codes
from pipeline.parquet import open_table

BATCH_BYTES = 16 * 2**20  # of values that are unpacked at once


class RowNotFound(LookupError):
    """The output has no such row; the message says what to ask for instead."""


@dataclass(frozen=True, slots=True)
class Row:
    """The codes of one clip."""

    clip_id: str
    codes: Codes
    num_samples: int
    sample_rate: int
    scales: np.ndarray | None = None
    """float32, of a codec that needs them to decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowQuery:
    """Which rows to read: those with these ids, or a range of the rows of shards and of a split, in plan order."""

    ids: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    """Ids of shards; empty for all shards."""
    split: str | None = None
    start: int = 0
    stop: int | None = None
    """One past the last row of the range; None for the end."""


def select_rows(output: Output, query: RowQuery, num_quantizers: int | None = None) -> tuple[int, Iterator[Row]]:
    """The number of rows, and an iterator over them with the first `num_quantizers` layers (default: all).

    Raises RowNotFound for an id or a shard that the output does not have: at once if the plan shows it, else while
    iterating. Raises ValueError for a number of layers that it does not have, and for a damaged object.
    """
    layers = layers_of(output, num_quantizers)
    if query.ids:
        wanted = _by_shard(output, query.ids)
        rows = (row for spec, ids in wanted for row in _rows_with_ids(output, spec, ids, layers))
        return len(set(query.ids)), rows
    ranges = row_ranges(output, query)
    rows = (row for spec, start, stop in ranges for row in rows_between(output, spec, start, stop, layers))
    return sum(stop - start for _, start, stop in ranges), rows


def layers_of(output: Output, num_quantizers: int | None) -> int:
    """How many layers that is. Raises ValueError where the output has fewer."""
    layers = output.record.num_quantizers if num_quantizers is None else num_quantizers
    if not 1 <= layers <= output.record.num_quantizers:
        raise ValueError(f"{layers} quantizers: the output has 1 to {output.record.num_quantizers}")
    return layers


def _by_shard(output: Output, ids: Sequence[str]) -> list[tuple[ShardSpec, set[str]]]:
    specs = {spec.shard_id: spec for spec in output.specs}
    wanted: dict[str, set[str]] = defaultdict(set)
    for clip_id in ids:
        shard_id = clip_id.rpartition("-")[0]
        if shard_id not in specs:
            raise RowNotFound(
                f"{clip_id}: no shard of this id: ids are those of column id, such as 0123456789abcdef-00000000"
            )
        if shard_id not in output.done:
            raise RowNotFound(f"{clip_id}: its shard is not committed yet: run tokenize again to finish it")
        wanted[shard_id].add(clip_id)
    return [(specs[shard_id], clip_ids) for shard_id, clip_ids in wanted.items()]


def row_ranges(output: Output, query: RowQuery) -> list[tuple[ShardSpec, int, int]]:
    """The range as ranges of single shards. Manifests are read up to its end."""
    known = {spec.shard_id for spec in output.specs}
    for shard_id in query.shards:
        if shard_id not in known:
            raise RowNotFound(f"{shard_id}: no shard of this id: they are the names of the files in data/")
        if shard_id not in output.done:
            raise RowNotFound(f"{shard_id}: not committed yet: run tokenize again to finish it")
    splits = dict.fromkeys(spec.split for spec in output.specs)
    if query.split is not None and query.split not in splits:
        raise RowNotFound(f"{query.split}: no split of this name: there are {', '.join(splits)}")
    ranges: list[tuple[ShardSpec, int, int]] = []
    before = 0
    for spec in output.committed:
        if query.split not in (None, spec.split):
            continue
        if query.shards and spec.shard_id not in query.shards:
            continue
        if query.stop is not None and before >= query.stop:
            break
        rows = read_manifest(output.layout, spec.shard_id).rows
        start = max(query.start - before, 0)
        stop = rows if query.stop is None else min(query.stop - before, rows)
        if start < stop:
            ranges.append((spec, start, stop))
        before += rows
    return ranges


def _rows_with_ids(output: Output, spec: ShardSpec, ids: set[str], layers: int) -> Iterator[Row]:
    missing = set(ids)
    with _Data(output, spec) as data:
        for group in range(data.groups):
            if not missing:
                return
            names = data.ids(group)
            positions = [position for position, name in enumerate(names) if name in missing]
            missing -= {names[position] for position in positions}
            yield from data.rows(group, positions, layers)
    if missing:
        clip_id = min(missing)
        raise RowNotFound(f"{clip_id}: not among the rows of its shard{_reject_reason(output, spec, clip_id)}")


def rows_between(output: Output, spec: ShardSpec, start: int, stop: int, layers: int) -> Iterator[Row]:
    """Some rows of a shard, by their positions in it."""
    with _Data(output, spec) as data:
        first = 0
        for group in range(data.groups):
            count = data.count(group)
            yield from data.rows(group, range(max(start - first, 0), min(stop - first, count)), layers)
            first += count


class _Data:
    """The open data object of a shard."""

    def __init__(self, output: Output, spec: ShardSpec) -> None:
        self._layout = output.layout
        self._uri = output.layout.data(spec)
        self._scales = output.record.code_columns.scales

    def __enter__(self) -> _Data:
        self._stream = self._layout.open_committed(self._uri)
        self._file: pq.ParquetFile = self._checked(lambda: open_table(self._stream))
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    @property
    def groups(self) -> int:
        return int(self._file.num_row_groups)

    def count(self, group: int) -> int:
        return int(self._file.metadata.row_group(group).num_rows)

    def ids(self, group: int) -> list[str]:
        names: list[str] = self._checked(
            lambda: self._file.read_row_group(group, columns=["id"], use_threads=False)["id"].to_pylist()
        )
        return names

    def rows(self, group: int, positions: Sequence[int], layers: int) -> Iterator[Row]:
        """The rows at these ascending positions of a row group. Reads nothing if there are none."""
        if not positions:
            return
        names = [schema.layer_column(layer) for layer in range(layers)]
        scales = [schema.SCALES] if self._scales else []
        columns = ["id", "num_samples", "sample_rate", *names, *scales]
        about = self._file.metadata.row_group(group)
        size = max(1, min(BATCH_BYTES * about.num_rows // max(1, about.total_byte_size), about.num_rows))
        batches = self._file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False)
        first, left = 0, list(positions)
        while left:
            batch = self._checked(lambda: next(batches))
            taken = [position - first for position in left if position < first + batch.num_rows]
            left = left[len(taken) :]
            for position in taken:
                yield _row(batch, position, names)
            first += batch.num_rows

    def _checked(self, read: Any) -> Any:
        try:
            return read()
        except (pa.ArrowException, OSError, LookupError, StopIteration) as error:
            reason = " ".join(str(error).split())  # Arrow writes several lines
            raise ValueError(f"{self._uri}: damaged: {reason}: see moss-tok verify") from error


def _row(batch: pa.RecordBatch, position: int, layers: Sequence[str]) -> Row:
    codes = join_codes([batch[name][position].values.to_numpy() for name in layers])
    clip_id, num_samples, sample_rate = (batch[name][position].as_py() for name in ("id", "num_samples", "sample_rate"))
    scales = batch[schema.SCALES][position].values.to_numpy() if schema.SCALES in batch.schema.names else None
    return Row(clip_id, codes, num_samples, sample_rate, scales)


def _reject_reason(output: Output, spec: ShardSpec, clip_id: str) -> str:
    uri = output.layout.rejects(spec)
    if storage.stat(uri) is None:
        return ""
    with storage.open_read(uri) as stream:
        for batch in open_table(stream).iter_batches(use_threads=False):
            for reject in batch.to_pylist():
                if reject["id"] == clip_id:
                    return f": it was rejected ({reject['reason']}): {reject['message']}"
    return ""
