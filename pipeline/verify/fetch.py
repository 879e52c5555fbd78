"""Reads an object of an output once: its size, its checksum, and a seekable copy."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from pipeline import storage

BLOCK_BYTES = 2**20
MAX_BYTES_IN_MEMORY = 16 * 2**20  # of an object; the copy of a larger one is a temporary file


@dataclass(frozen=True, slots=True)
class FetchedObject:
    """A copy of an object, with size and checksum."""

    file: BinaryIO
    size: int
    """Bytes."""
    sha256: str


@contextmanager
def fetch(uri: str) -> Iterator[FetchedObject]:
    """Read the object once. Raises FileNotFoundError, and StorageError if the store fails."""
    info = storage.stat(uri)
    if info is None:
        raise FileNotFoundError(f"{uri}: not there")
    with io.BytesIO() if info.size <= MAX_BYTES_IN_MEMORY else tempfile.TemporaryFile() as copy:
        digest = hashlib.sha256()
        size = 0
        with storage.open_read(uri) as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                copy.write(block)
                size += len(block)
        copy.seek(0)
        yield FetchedObject(copy, size, digest.hexdigest())
