"""Writing objects: each appears whole or not at all, and with `create` only where there is none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from pipeline.storage.conditions import create_if_absent, supports_conditional_create
from pipeline.storage.location import Location

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def publish(uri: str, data: bytes) -> None:
    """Make `data` the object at `uri`, whole or not at all. An object that is there already is replaced."""
    location = Location.of(uri)
    if location.is_local:
        location.retry("write", _publish_local, location.path, data, os.replace)
    else:  # one PUT, or a multipart upload that is complete or absent
        location.retry("write", location.put, data)


def create(uri: str, data: bytes, labels: Mapping[str, str] | None = None) -> bool:
    """Like `publish`, but only if there is no object yet. Returns whether it was created; of several callers, one
    creates it.

    On S3 it is a conditional PUT, and `labels` become the object's user metadata. If an answer is lost, the client
    tries again and may find its own object, so False means that an object is there, and not whose it is.

    A store that ignores conditions (see `supports_conditional_create`) is asked before the write whether there is an
    object, and after it which one. Two writers within that moment leave the object of one of them, whole, and the other
    is told so.
    """
    location = Location.of(uri)
    if location.is_local:
        return location.retry("write", _create_local, location.path, data)
    options = {"Metadata": dict(labels)} if labels and location.is_s3 else {}
    conditional = supports_conditional_create(uri.rpartition("/")[0])
    return location.retry(
        "write", create_if_absent if conditional else _create_without_condition, location, data, **options
    )


@contextlib.contextmanager
def published_file(uri: str) -> Iterator[str]:
    """The path of a new file on this machine, for what is too large to hold in memory.

    When the block ends without an error, the file becomes the object at `uri`, whole or not at all; an object that is
    there already is replaced. For a local `uri` the new file lies in the same folder, with a leading dot.
    """
    location = Location.of(uri)
    folder = os.path.dirname(location.path) if location.is_local else tempfile.gettempdir()
    location.retry("write", os.makedirs, folder, exist_ok=True)
    temporary = _temporary_name(folder, location.path)
    try:
        yield temporary
        if location.is_local:
            location.retry("write", _move, temporary, location.path)
        else:  # one PUT, or a multipart upload that is complete or absent
            location.retry("write", location.put_file, temporary)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def remove(uri: str) -> None:
    """Delete the object; nothing happens if it is not there."""
    location = Location.of(uri)
    with contextlib.suppress(FileNotFoundError):
        location.retry("delete", location.filesystem.rm_file, location.path)


def _create_without_condition(location: Location, data: bytes, **options: Any) -> bool:
    filesystem, path = location.filesystem, location.path
    if filesystem.exists(path):
        return False
    location.put(data, **options)
    return bool(filesystem.cat_file(path) == data)


def _create_local(path: str, data: bytes) -> bool:
    """Create a file by a hard link, which fails if the file exists; a rename would replace it."""
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
            # Mounted object stores and FAT have no links: two that create at the same moment may both succeed.
            created = not os.path.lexists(path)
            if created:
                os.replace(temporary, path)

    _publish_local(path, data, place)
    return created


def _publish_local(path: str, data: bytes, place: Callable[[str, str], None]) -> None:
    """Write a temporary file in the same folder, flush it to disk, and then `place` it at `path`."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = _temporary_name(folder, path)
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


def _move(temporary: str, path: str) -> None:
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _temporary_name(folder: str, path: str) -> str:
    """A name with a leading dot, so that readers that glob *.parquet do not find a file that is still being written."""
    return os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp")


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """A new file, locked: the lock tells `remove_stale` (in pipeline/storage/stale.py) that it is being written."""
    while True:
        with open(path, "xb") as file:
            with contextlib.suppress(OSError):  # on a file system without locks, stale files stay
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # else it was removed as stale in the moment before it was locked
                yield file
                return
