"""Multipart uploads that nobody will finish: a worker that died in one leaves parts that are paid for and not seen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any, cast

from pipeline.storage.address import StorageError, resolve
from pipeline.storage.client import is_s3
from pipeline.storage.retrying import with_retries

STALE_SECONDS = 24 * 3600.0
"""An upload of one object is over within minutes, so that no clock has to be right to the hour."""

logger = logging.getLogger(__name__)


def abort_stale_uploads(folder: str, older_than: float = STALE_SECONDS) -> int:
    """Abort the uploads below a folder on S3 that began more than `older_than` seconds ago; returns how many.

    It is housekeeping: a store that does not let us is a warning and no error.
    """
    filesystem, path = resolve(folder)
    if not is_s3(filesystem):
        return 0
    bucket, key, _ = filesystem.split_path(path)

    def call(method: str, **arguments: Any) -> dict[str, Any]:
        request = partial(filesystem.call_s3, method, Bucket=bucket, **arguments)
        return cast("dict[str, Any]", with_retries(filesystem, folder, "sweep", request))

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
        logger.warning("%s: unfinished uploads are not swept: %s", folder, error)
    return aborted


def _uploads(call: Callable[..., dict[str, Any]], prefix: str) -> Iterator[dict[str, Any]]:
    marker: dict[str, str] = {}
    while True:
        page = call("list_multipart_uploads", Prefix=prefix, **marker)
        yield from page.get("Uploads") or []
        if not page.get("IsTruncated"):
            return
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
