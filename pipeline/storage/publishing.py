"""Objects that appear whole or not at all, and where it matters only once."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable

from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.address import named, resolve


def publish(uri: str, data: bytes) -> None:
    """Make `data` the object at `uri`, whole or not at all; an object that is there already is replaced."""
    filesystem, path = resolve(uri)
    with named(uri, "write"):
        if isinstance(filesystem, LocalFileSystem):
            _publish_local(path, data, os.replace)
        else:
            filesystem.pipe_file(path, data)  # one PUT, or a multipart upload that is complete or absent


def create(uri: str, data: bytes) -> bool:
    """Like `publish`, but only where there is no object yet; whether it did. Of several at the same time, one does.

    On S3 it is a conditional PUT. After a lost answer the client may try again and lose to itself, so False says that
    an object is there, not whose it is.
    """
    filesystem, path = resolve(uri)
    with named(uri, "write"):
        try:
            if isinstance(filesystem, LocalFileSystem):
                _publish_local(path, data, os.link)
            else:
                filesystem.pipe_file(path, data, mode="create")
        except OSError as error:
            if isinstance(error, FileExistsError) or _refused_condition(error):
                return False
            raise
    return True


def remove(uri: str) -> None:
    """Delete the object; nothing happens if it is not there."""
    filesystem, path = resolve(uri)
    with named(uri, "delete"), contextlib.suppress(FileNotFoundError):
        filesystem.rm_file(path)


def _refused_condition(error: BaseException) -> bool:
    """Whether an error of an S3 client stands for HTTP 412: stores spell it differently, and s3fs hides it."""
    response = getattr(error.__cause__, "response", None) or {}
    return bool(response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412)


def _publish_local(path: str, data: bytes, place: Callable[[str, str], None]) -> None:
    """Write beside `path` and then `place` it there: `os.replace`, or `os.link`, which refuses where something is."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # The leading dot keeps readers that glob *.parquet away from a file that is still being written.
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        place(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    descriptor = os.open(folder, os.O_RDONLY)  # the rename itself lasts only once the folder is on disk
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
