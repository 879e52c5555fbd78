"""JSON documents that carry their own checksum, so that a changed byte is noticed whenever one is read.

They are the parts of an output that have no checksum elsewhere: the run's record, the totals and the shard manifests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

CHECKSUM = "checksum"


def dump_checksummed(document: Mapping[str, Any]) -> bytes:
    """The document as readable JSON with sorted keys and, under `checksum`, the SHA-256 of all the rest."""
    digest = hashlib.sha256(_dump(document)).hexdigest()
    return _dump({**document, CHECKSUM: digest})


def load_checksummed(data: bytes) -> dict[str, Any]:
    """The inverse of `dump_checksummed`. Raises ValueError for bytes that it did not write: every byte counts."""
    document = cast("dict[str, Any]", json.loads(data))
    if not isinstance(document, dict) or CHECKSUM not in document:
        raise ValueError("no JSON object with a checksum")
    del document[CHECKSUM]
    if dump_checksummed(document) != data:
        raise ValueError("its checksum does not fit: it was damaged or changed after it was written")
    return document


def _dump(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # Bytes of a local file name that are not UTF-8 become \udcXX, which is valid JSON and is read back unchanged.
    return text.encode("utf-8", "backslashreplace")
