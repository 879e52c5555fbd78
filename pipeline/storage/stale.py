"""What processes left behind that died while they wrote: nobody sees it, but it takes room."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re

from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.address import resolve
from pipeline.storage.uploads import abort_stale_uploads

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


def remove_stale(folder: str) -> int:
    """Remove what was begun below the folder and will never be finished; returns how many.

    On a local disk a writer holds a lock on its temporary file, which ends with the writer: what is not locked belongs
    to nobody. On S3, where nothing tells the living from the dead, it is the uploads that are older than a day.
    """
    filesystem, path = resolve(folder)
    if not isinstance(filesystem, LocalFileSystem):
        return abort_stale_uploads(folder)
    names = (os.path.join(where, name) for where, _, names in os.walk(path) for name in names)
    return sum(_removed(name) for name in names if _TEMPORARY.fullmatch(os.path.basename(name)))


def _removed(path: str) -> bool:
    # A file system without locks, or a file that another sweeper has just removed: there is nothing to be done.
    with contextlib.suppress(OSError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return True
    return False
