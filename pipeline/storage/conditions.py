"""Whether a store can create an object without replacing one: some ignore the condition and overwrite in silence."""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Any
from weakref import WeakKeyDictionary

from fsspec import AbstractFileSystem

from pipeline.storage.errors import StorageError, status_and_code
from pipeline.storage.location import Location

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_known: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()
"""The answer for each file system and bucket, so that a process asks once."""


def supports_conditional_create(folder: str) -> bool:
    """Whether the store of this folder creates an object only where there is none, when it is asked to.

    The first call in a process tests it: it creates an object with a random name there twice, and removes it.
    """
    location = Location.of(folder)
    if location.is_local:
        return True  # a hard link is never made over a file
    with _lock:
        known = _known.setdefault(location.filesystem, {})
        if location.bucket not in known:
            known[location.bucket] = _test_store(location.child(f".created-twice-{secrets.token_hex(8)}"))
            if not known[location.bucket]:
                logger.warning(
                    "%s: this store, or its client, replaces objects even where it is asked not to: each object is "
                    "looked for before it is written and read again afterwards. Do not start jobs with different "
                    "settings on one output at the same moment",
                    folder,
                )
        return known[location.bucket]


def create_if_absent(location: Location, data: bytes, **options: Any) -> bool:
    """Create the object with one conditional write. Returns whether it was created.

    False means that an object is there. It may be the result of an earlier try of the same call, whose answer was lost.
    """
    try:
        location.put(data, mode="create", **options)
    except OSError as error:
        # s3fs turns what stores spell differently into one error, and keeps the status.
        if isinstance(error, FileExistsError) or status_and_code(error)[0] == 412:
            return False
        raise
    return True


def _test_store(location: Location) -> bool:
    if not location.filesystem.async_impl and type(location.filesystem).pipe_file is AbstractFileSystem.pipe_file:
        return False  # fsspec's stand-in looks first and then writes, which this test would take for a condition
    try:
        first = location.retry("write", create_if_absent, location, b"1")
        return not (first and location.retry("write", create_if_absent, location, b"2"))
    except StorageError as error:
        if status_and_code(error)[0] in (400, 501):  # it says that it does not know the condition
            return False
        raise
    finally:
        _remove_if_possible(location)


def _remove_if_possible(location: Location) -> None:
    try:
        location.filesystem.rm_file(location.path)
    except Exception as error:  # not everybody who may write may delete; or nothing was created
        logger.info("%s: an empty object that may stay: %s", location.path, error)
