"""Removing what processes left behind that died while they wrote. No reader sees it, but it takes space and costs
money."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from pipeline.storage.errors import StorageError
from pipeline.storage.location import Location

STALE_SECONDS = 24 * 3600.0
"""An upload of one object takes minutes, so the clocks need not agree to the hour."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")

logger = logging.getLogger(__name__)


def remove_stale(folder: str) -> int:
    """Remove what was begun below the folder and will never be finished; returns how many.

    On a local disk a writer holds a lock on its temporary file, and the lock ends with the writer: a file without one
    belongs to nobody. On S3, where nothing tells a live writer from a dead one, it is the multipart uploads that are
    older than a day.
    """
    location = Location.of(folder)
    if location.is_s3:
        return abort_stale_uploads(folder)
    if not location.is_local:
        return 0
    paths = (os.path.join(where, name) for where, _, names in os.walk(location.path) for name in names)
    return sum(_remove_unlocked(path) for path in paths if _TEMPORARY.fullmatch(os.path.basename(path)))


def abort_stale_uploads(folder: str, older_than: float = STALE_SECONDS) -> int:
    """Abort the multipart uploads below a folder on S3 that began more than `older_than` seconds ago.

    Returns how many. A store that does not allow it is a warning and no error.
    """
    location = Location.of(folder)
    bucket, key, _ = location.filesystem.split_path(location.path)

    def call(method: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = location.retry(
            "clean up", location.filesystem.call_s3, method, Bucket=bucket, **arguments
        )
        return answer

    now = datetime.now(timezone.utc)
    aborted = 0
    try:
        for upload in _uploads(call, f"{key}/" if key else ""):
            if (now - upload["Initiated"]).total_seconds() > older_than:
                call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
                aborted += 1
    except FileNotFoundError as error:  # not there yet, or a store that does not list uploads
        logger.info("%s: no unfinished uploads are found: %s", folder, error)
    except StorageError as error:
        logger.warning("%s: unfinished uploads are not removed: %s", folder, error)
    return aborted


def _remove_unlocked(path: str) -> bool:
    # Where the file system has no locks, or another process has just removed the file, nothing is to be done.
    with contextlib.suppress(OSError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return True
    return False


def _uploads(call: Callable[..., dict[str, Any]], prefix: str) -> Iterator[dict[str, Any]]:
    marker: dict[str, str] = {}
    while True:
        page = call("list_multipart_uploads", Prefix=prefix, **marker)
        yield from page.get("Uploads") or []
        if not page.get("IsTruncated"):
            return
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
