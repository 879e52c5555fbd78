"""Parts of an object: what a reader of a few columns needs, without the rest crossing the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pipeline.storage.address import StorageError, resolve
from pipeline.storage.retrying import with_retries


def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes [start, stop) of each range, in order; a remote store is asked for all of them at once.

    Raises FileNotFoundError if there is no such object, StorageError if it holds less than was asked for.
    """
    if not ranges:
        return []
    filesystem, path = resolve(uri)
    starts, stops = zip(*ranges, strict=True)
    paths = [path] * len(ranges)
    answer = with_retries(
        filesystem, uri, "read", lambda: filesystem.cat_ranges(paths, list(starts), list(stops), on_error="raise")
    )
    parts = cast("list[bytes]", answer)
    for (start, stop), part in zip(ranges, parts, strict=True):
        if len(part) != stop - start:
            raise StorageError(f"{uri}: {len(part)} bytes from {start} on, and {stop - start} were asked for")
    return parts
