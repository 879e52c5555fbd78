"""Finds clips whose waveforms are equal sample by sample: equal `audio_xxh3` and `num_samples`.

Rows are divided by hash among files in a temporary folder, so that all copies of a clip are in one file. The files are
searched one after the other. Memory holds one division (about a million rows) and the duplicates, about 200 bytes each;
the temporary folder takes about 100 bytes per row (10 GB for 100 million).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset.dataset import Output
from pipeline.items import ShardSpec
from pipeline.parquet import read_columns

ROWS_PER_DIVISION = 1_000_000
ROWS_HELD = 200_000
BATCH_ROWS = 10_000

_KINDS = {
    **{"id": pa.string(), "source": pa.string(), "key": pa.string()},
    **{"num_samples": pa.int64(), "duration": pa.float64(), "audio_xxh3": pa.string()},
}
COLUMNS = tuple(_KINDS)
"""The columns that are read of a data object."""
WAVEFORM = ("audio_xxh3", "num_samples")
"""Columns that are equal for equal waveforms."""

KEEP, DROP = "keep", "drop"

LISTING = pa.schema(
    [
        pa.field("group", pa.int64(), False, {"description": "Number of the group, the largest first, from 0."}),
        pa.field("copies", pa.int64(), False, {"description": "Clips in the group."}),
        pa.field("action", pa.string(), False, {"description": "keep for the first of the group by id, else drop."}),
        pa.field("id", pa.string(), False),
        pa.field("source", pa.string(), False),
        pa.field("key", pa.string(), False),
        pa.field("duration", pa.float64(), False, {"unit": "s"}),
        pa.field("audio_xxh3", pa.string(), False),
    ]
)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Every clip that has a copy."""

    listing: pa.Table
    """Columns of LISTING. The largest group comes first; equally large groups, and clips of a group, are by id."""
    rows: int
    """Number of rows that were compared."""

    @property
    def groups(self) -> int:
        return self._count(KEEP)

    @property
    def to_drop(self) -> int:
        """Number of clips that are copies of another clip."""
        return self._count(DROP)

    @property
    def wasted_seconds(self) -> float:
        """Seconds of audio in the copies."""
        copies = self.listing.filter(pc.equal(self.listing["action"], DROP))
        return float(pc.sum(copies["duration"], min_count=0).as_py())

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """The listing as rows, BATCH_ROWS at a time."""
        for batch in self.listing.to_batches(BATCH_ROWS):
            yield batch.to_pylist()

    def _count(self, action: str) -> int:
        return int(pc.sum(pc.equal(self.listing["action"], action), min_count=0).as_py())


def find_duplicates(
    output: Output,
    rows_per_division: int = ROWS_PER_DIVISION,
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Duplicates:
    """Compare all committed rows of the output. Raises what `read_columns` raises for a damaged object."""
    specs = output.committed
    divisions = max(1, -(-output.totals().rows // rows_per_division))
    with tempfile.TemporaryDirectory(prefix="moss-tok-duplicates-") as folder:
        rows = 0
        with _Divider(folder, divisions) as divider:
            for count, spec in enumerate(specs, 1):
                rows += _divide(output, spec, divider)
                advance("shards", count, len(specs))
            divider.flush()
        found = [_copies(path) for path in divider.paths]
    return Duplicates(_in_order(pa.concat_tables(found)), rows)


class _Divider:
    """Divides rows by hash among Arrow files. Rows are held back until there are ROWS_HELD to write."""

    def __init__(self, folder: str, divisions: int) -> None:
        self.paths = [os.path.join(folder, f"{number}.arrow") for number in range(divisions)]
        self._schema = pa.schema(list(_KINDS.items()))
        self._writers: list[pa.RecordBatchStreamWriter] = []
        self._files = contextlib.ExitStack()
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0

    def __enter__(self) -> _Divider:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for path in self.paths:
            self._writers.append(self._files.enter_context(pa.ipc.new_stream(path, self._schema, options=options)))
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def add(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        if self._held_rows >= ROWS_HELD:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held back."""
        if not self._held:
            return
        rows = pa.Table.from_batches(self._held).cast(self._schema)
        hashes = np.array([int(digits[:8], 16) for digits in rows["audio_xxh3"].to_pylist()], np.int64)
        for division, writer in enumerate(self._writers):
            writer.write_table(rows.filter(pa.array(hashes % len(self._writers) == division)))
        self._held, self._held_rows = [], 0


def _divide(output: Output, spec: ShardSpec, divider: _Divider) -> int:
    info = output.layout.stat_committed(output.layout.data(spec))
    rows = 0
    for batch in read_columns(info, COLUMNS):
        divider.add(batch)
        rows += batch.num_rows
    return rows


def _copies(path: str) -> pa.Table:
    """The rows of one division that have a copy, with the number of copies in a column."""
    with pa.memory_map(path) as file, pa.ipc.open_stream(file) as stream:
        table = stream.read_all()
    counts = table.select(WAVEFORM).group_by(WAVEFORM, use_threads=False).aggregate([([], "count_all")])
    counts = counts.rename_columns([*WAVEFORM, "copies"])
    several = counts.filter(pc.greater(counts["copies"], 1))
    return table.join(several, list(WAVEFORM), join_type="inner", use_threads=False)


def _in_order(table: pa.Table) -> pa.Table:
    """The listing in its order, with group numbers and actions."""
    table = table.sort_by("id")
    first = table.group_by(WAVEFORM, use_threads=False).aggregate([("id", "min")])
    table = table.join(first, list(WAVEFORM), join_type="inner", use_threads=False)
    table = table.sort_by([("copies", "descending"), ("id_min", "ascending"), ("id", "ascending")])
    keep = pc.equal(table["id"], table["id_min"])
    columns = {
        "group": np.cumsum(keep.to_numpy().astype(np.int64)) - 1,
        "action": pc.if_else(keep, KEEP, DROP),
    }
    columns |= {name: table[name] for name in LISTING.names if name not in columns}
    return pa.table([columns[name] for name in LISTING.names], names=LISTING.names).cast(LISTING)


def check_listing_name(name: str) -> None:
    """Raises ValueError unless the name ends in .jsonl, .parquet or .txt."""
    if not name.endswith((".jsonl", ".parquet", ".txt")):
        raise ValueError(f"{name}: a listing ends in .jsonl, .parquet or, for the ids to drop alone, .txt")


def listing_bytes(duplicates: Duplicates, name: str) -> bytes:
    """The listing in the format of a file name's ending.

    .jsonl and .parquet list every clip that has a copy, with `action` keep or drop. .txt lists the ids to drop, one per
    line, as `filters.reject_lists` of an export takes them. Raises ValueError for another ending.
    """
    check_listing_name(name)
    if name.endswith(".parquet"):
        sink = io.BytesIO()
        pq.write_table(duplicates.listing, sink, compression="zstd")
        return sink.getvalue()
    rows = (row for batch in duplicates.batches() for row in batch)
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return "".join(f"{row['id']}\n" for row in rows if row["action"] == DROP).encode()
