"""Files that are made on this machine, too large to hold in memory, and published whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator

from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.address import resolve
from pipeline.storage.retrying import with_retries


@contextlib.contextmanager
def published_file(uri: str) -> Iterator[str]:
    """The path of a new file; what is in it becomes the object at `uri` once the block ends without an error.

    An object that is there already is replaced. Locally the file lies beside its place, with a leading dot.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        folder = os.path.dirname(path)
        with_retries(filesystem, uri, "write", lambda: os.makedirs(folder, exist_ok=True))
    else:
        folder = tempfile.gettempdir()
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        if isinstance(filesystem, LocalFileSystem):
            with_retries(filesystem, uri, "write", lambda: _place(temporary, path))
        else:  # one PUT, or a multipart upload that is complete or absent
            with_retries(filesystem, uri, "write", lambda: filesystem.put_file(temporary, path))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _place(temporary: str, path: str) -> None:
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
