"""Columns of many shards in few Arrow files of this machine, which are mapped into memory instead of read.

A file's name is a hash of the versions of its shards and of what was taken from them: another process, or a run next
week, finds it; a shard that was made anew is another file. Nothing else in the folder is ever looked at.
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
FILE_BYTES = 2**30  # of shards in one Arrow file: a split of terabytes still is not too many files to map
SHARDS_AHEAD = 4  # read while one is written: a remote shard is mostly waiting

ReadShard: TypeAlias = "partial[Iterator[pa.RecordBatch]]"
"""Gives the batches of a shard; its keyword arguments say what it takes from it."""


def cached_files(shards: Sequence[ObjectInfo], read: ReadShard, folder: Path) -> list[Path]:
    """The Arrow files that hold what `read` gives for each shard, in order, made now unless they are there.

    Of several processes that want the same file, one makes it and the others wait.
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
    """Neighbouring shards of about FILE_BYTES together: more shards at the end leave the first groups as they were."""
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
