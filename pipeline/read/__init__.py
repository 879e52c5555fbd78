"""Shards into encoded clips: one reader for each input format.

A defect of a clip is a Reject and reading goes on. A store that fails is a StorageError and the shard is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.config import InputConfig
from pipeline.items import RawClip, Reject, ShardSpec
from pipeline.read.files import read_files
from pipeline.read.manifest import read_manifest
from pipeline.read.parquet import read_parquet
from pipeline.read.webdataset import read_webdataset

_READERS: dict[str, Callable[[ShardSpec, InputConfig], Iterator[RawClip | Reject]]] = {
    "files": read_files,
    "manifest": read_manifest,
    "webdataset": read_webdataset,
    "parquet": read_parquet,
}


def read_shard(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Every clip of the shard in source order, each once, as a RawClip or as a Reject."""
    return _READERS[spec.format](spec, config)
