"""Whether a store keeps its promise not to replace an object: some ignore the condition and overwrite in silence."""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Any
from weakref import WeakKeyDictionary

from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.address import StorageError, join, resolve
from pipeline.storage.retrying import status_and_code, with_retries

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_known: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()
"""For each file system and bucket. It is asked once in a process."""


def supports_conditional_create(folder: str) -> bool:
    """Whether the store of this folder creates an object only where there is none, if it is asked to.

    It is tried out: one object of a random name is created there twice, and removed.
    """
    filesystem, path = resolve(folder)
    if isinstance(filesystem, LocalFileSystem):
        return True  # links refuse
    bucket = path.partition("/")[0]
    with _lock:
        known = _known.setdefault(filesystem, {})
        if bucket not in known:
            known[bucket] = _test_store(filesystem, join(folder, f".created-twice-{secrets.token_hex(8)}"))
            if not known[bucket]:
                logger.warning(
                    "%s: this store replaces objects even where it is asked not to (no If-None-Match): each object is "
                    "looked for before it is written and read again afterwards. Do not start jobs with different "
                    "settings on one output at the same moment",
                    folder,
                )
        return known[bucket]


def _test_store(filesystem: Any, uri: str) -> bool:
    path = resolve(uri)[1]
    try:
        first = with_retries(filesystem, uri, "write", lambda: create_if_absent(filesystem, path, b"1"))
        return not (first and with_retries(filesystem, uri, "write", lambda: create_if_absent(filesystem, path, b"2")))
    except StorageError as error:
        if status_and_code(error)[0] in (400, 501):  # it does not know the condition, and says so
            return False
        raise
    finally:
        _delete_quietly(filesystem, path)


def create_if_absent(filesystem: Any, path: str, data: bytes, **options: Any) -> bool:
    """One conditional write; whether it was done. False says that an object is there, not whose it is."""
    try:
        filesystem.pipe_file(path, data, mode="create", **options)
    except OSError as error:
        if (
            isinstance(error, FileExistsError) or status_and_code(error)[0] == 412
        ):  # s3fs hides what stores spell differently
            return False
        raise
    return True


def _delete_quietly(filesystem: Any, path: str) -> None:
    try:
        filesystem.rm_file(path)
    except Exception as error:  # some may write and not delete, or there is nothing
        logger.info("%s: an empty object that may stay: %s", path, error)
