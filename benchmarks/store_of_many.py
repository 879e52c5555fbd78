"""A simulated store that has only a listing: a million tars, and the manifests of most of them.

It answers like s3fs, entry by entry and in pages of 1,000 names, but at once from memory. So benchmarks with it measure
what the project does with a listing, and not the time of a store or its client.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

PROTOCOL = "manyshards"
_MODIFIED = datetime(2026, 1, 1, tzinfo=timezone.utc)


class StoreOfMany(AbstractFileSystem):  # type: ignore[misc]
    """Has tars below `bucket/audio/`, manifests below `bucket/codes/_moss_tok/shards/`, and what is written to it."""

    protocol = PROTOCOL
    tars = 0
    manifests: list[str] = []  # noqa: RUF012  sorted ids, one store for the whole process
    objects: dict[str, bytes] = {}  # noqa: RUF012
    requests = 0

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **options: Any,
    ) -> Any:
        start = f"{self._strip_protocol(path).rstrip('/')}/{prefix}"
        entries = [self._entry(name, 10**9) for name in self._names(start)]
        type(self).requests += 1 + len(entries) // 1000
        return {entry["name"]: entry for entry in entries} if detail else [entry["name"] for entry in entries]

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        found = self.find(path, detail=True)
        return list(found.values()) if detail else list(found)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self._entry(path, len(self.objects[path]))

    def exists(self, path: str, **options: Any) -> bool:
        return path in self.objects

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.info(path)
        return self.objects[path][start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if mode == "create" and path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = value

    def rm_file(self, path: str) -> None:
        del self.objects[path]

    def _names(self, start: str) -> Iterator[str]:
        if start.startswith("bucket/audio/"):
            yield from (f"bucket/audio/train-{number:07d}.tar" for number in range(self.tars))
        folder = "bucket/codes/_moss_tok/shards/"
        if start.startswith(folder):
            prefix = start[len(folder) :]
            yield from (f"{folder}{shard_id}.json" for shard_id in self.manifests if shard_id.startswith(prefix))
        else:
            yield from (name for name in self.objects if name.startswith(start))

    @staticmethod
    def _entry(name: str, size: int) -> dict[str, Any]:
        etag = f'"{hash(name) & (2**128 - 1):032x}"'
        key = name.partition("/")[2]
        listed = {"Key": key, "LastModified": _MODIFIED, "ETag": etag, "Size": size, "StorageClass": "STANDARD"}
        return {**listed, "type": "file", "size": size, "name": name}


def register() -> None:
    """Register the protocol `manyshards://`."""
    fsspec.register_implementation(PROTOCOL, StoreOfMany, clobber=True)
