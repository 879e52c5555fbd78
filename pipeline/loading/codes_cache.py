"""Copies columns of many shards to a few local Arrow files, which are mapped into memory instead of read.

The name of a file is a hash of its shards, their versions, and what was read of them. So later processes find it, and a
shard that was made again gets a new file. Other files in the folder are ignored.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
from datasets.utils import tqdm
from filelock import FileLock

from pipeline.concurrency import in_order
from pipeline.items import stable_hash
from pipeline.storage import ObjectInfo

CODES = "codes"
FORMAT = "moss_tok.codes_cache.1"
FILE_BYTES = 2**30  # of shards in one Arrow file, so that a split of terabytes is not too many files to map
SHARDS_AHEAD = 4  # shards that are read while one is written: reading a remote shard is mostly waiting

ReadShard: TypeAlias = "partial[Iterator[pa.RecordBatch]]"
"""Yields the batches of a shard. Its keyword arguments say what it reads, and are part of the name of the file."""


def cached_files(shards: Sequence[ObjectInfo], read: ReadShard, folder: Path) -> list[Path]:
    """The Arrow files with what `read` yields for each shard, in order. Files that do not exist are made.

    If several processes need the same file, one makes it and the others wait.
    """
    groups = [(_path(group, read, folder), group) for group in _groups(shards)]
    missing = sum(len(group) for path, group in groups if not path.exists())
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=missing, unit=" shards", desc="caching codes") as progress:
            for path, group in groups:
                with FileLock(f"{path}.lock"):
                    if not path.exists():
                        _write(path, group, read, progress.update)
    return [path for path, _ in groups]


def _groups(shards: Sequence[ObjectInfo]) -> list[list[ObjectInfo]]:
    """Groups of neighbouring shards, each of about FILE_BYTES. New shards at the end leave earlier groups unchanged."""
    groups: list[list[ObjectInfo]] = [[]]
    size = 0
    for info in shards:
        if groups[-1] and size + info.size > FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(info)
        size += info.size
    return groups


def _path(group: Sequence[ObjectInfo], read: ReadShard, folder: Path) -> Path:
    shards = [part for info in group for part in (info.uri, info.version)]
    return folder / f"{stable_hash(FORMAT, repr(sorted(read.keywords.items())), *shards)}.arrow"


def _write(path: Path, group: Sequence[ObjectInfo], read: ReadShard, advance: Callable[[], object]) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        writer: pa.RecordBatchStreamWriter | None = None
        with pa.OSFile(str(temporary), "wb") as sink:
            for batches in in_order(lambda info: list(read(info)), group, SHARDS_AHEAD):
                for batch in batches:
                    writer = writer or pa.ipc.new_stream(sink, batch.schema)
                    writer.write_batch(batch)
                advance()
            if writer is not None:
                writer.close()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
