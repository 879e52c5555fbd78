"""Objects too large to hold in memory, as files of this machine that nobody has to clean up.

A local object is opened where it lies. One of a store is copied to the folder for temporary files (TMPDIR) first. The
name of the copy is removed at once, so that the kernel frees it with the last who has it open, even if this process is
killed.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.storage.errors import ObjectTooLarge

COPY_BYTES = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class FileOnDisk:
    """An open file. Its path leads to the content that it had when it was opened, as long as this object lives."""

    file: Any
    size: int
    """Bytes."""

    def __len__(self) -> int:
        return self.size

    def __fspath__(self) -> str:
        return f"/proc/self/fd/{self.file.fileno()}"


def open_local(path: str, max_bytes: int) -> FileOnDisk:
    """The local file at `path`. Raises ObjectTooLarge, and OSError if it cannot be opened."""
    file = open(path, "rb")  # noqa: SIM115  it is closed with the object that holds it
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        file.close()
        raise ObjectTooLarge(f"{size} bytes, and {max_bytes} are allowed")
    return FileOnDisk(file, size)


def copy_of(stream: BinaryIO, max_bytes: int) -> FileOnDisk:
    """What is in the stream. Raises ObjectTooLarge once it is longer than `max_bytes`."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  likewise
    size = 0
    while block := stream.read(COPY_BYTES):
        size += len(block)
        if size > max_bytes:
            raise ObjectTooLarge(f"more than the {max_bytes} bytes that are allowed")
        copy.write(block)
    copy.flush()
    return FileOnDisk(copy, size)
