"""Objects that appear whole or not at all, and where it matters only once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.address import resolve
from pipeline.storage.client import is_s3
from pipeline.storage.conditions import create_if_absent, supports_conditional_create
from pipeline.storage.retrying import with_retries

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def publish(uri: str, data: bytes) -> None:
    """Make `data` the object at `uri`, whole or not at all; an object that is there already is replaced."""
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        with_retries(filesystem, uri, "write", lambda: _publish_local(path, data, os.replace))
    else:  # one PUT, or a multipart upload that is complete or absent
        with_retries(filesystem, uri, "write", lambda: filesystem.pipe_file(path, data))


def create(uri: str, data: bytes, labels: Mapping[str, str] | None = None) -> bool:
    """Like `publish`, but only where there is no object yet; whether it did. Of several at the same time, one does.

    On S3 it is a conditional PUT, and `labels` become the object's user metadata. After a lost answer the client tries
    again and may lose to itself, so False says that an object is there, not whose it is.

    A store that ignores conditions (see `supports_conditional_create`) is asked before the write whether there is an
    object, and after it which one. Two writers within that moment leave the object of one of them, whole, and the other
    is told so.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        return with_retries(filesystem, uri, "write", lambda: _create_local(path, data))
    options = {"Metadata": dict(labels)} if labels and is_s3(filesystem) else {}
    if supports_conditional_create(uri.rpartition("/")[0]):
        return with_retries(filesystem, uri, "write", lambda: create_if_absent(filesystem, path, data, **options))
    return with_retries(filesystem, uri, "write", lambda: _create_without_conditions(filesystem, path, data, options))


def remove(uri: str) -> None:
    """Delete the object; nothing happens if it is not there."""
    filesystem, path = resolve(uri)
    with contextlib.suppress(FileNotFoundError):
        with_retries(filesystem, uri, "delete", lambda: filesystem.rm_file(path))


def _create_without_conditions(filesystem: Any, path: str, data: bytes, options: Mapping[str, Any]) -> bool:
    if filesystem.exists(path):
        return False
    filesystem.pipe_file(path, data, **options)
    return bool(filesystem.cat_file(path) == data)


def _create_local(path: str, data: bytes) -> bool:
    """A link refuses where something is, unlike a rename."""
    created = True

    def place(temporary: str, path: str) -> None:
        nonlocal created
        try:
            os.link(temporary, path)
        except FileExistsError:
            created = False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Mounted object stores and FAT know no links: two that create at the same moment may both succeed.
            created = not os.path.lexists(path)
            if created:
                os.replace(temporary, path)

    _publish_local(path, data, place)
    return created


def _publish_local(path: str, data: bytes, place: Callable[[str, str], None]) -> None:
    """Write beside `path`, with all of it on disk, and then `place` it there."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # The leading dot keeps readers that glob *.parquet away from a file that is still being written.
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp")
    try:
        with _new_file(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            place(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    descriptor = os.open(folder, os.O_RDONLY)  # the new name itself lasts only once the folder is on disk
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """Locked, by which `remove_stale` (see pipeline/storage/stale.py) knows that it is being written."""
    while True:
        with open(path, "xb") as file:
            with contextlib.suppress(OSError):  # a file system without locks is only not swept
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # else it was swept in the moment before it was locked
                yield file
                return
