"""Parquet files that carry the SHA-256 of all their bytes, footer included, so that a file proves itself.

Pages have checksums of their own, the footer has none. The digest is in the footer's key-value metadata, under
`moss_tok.sha256`. It is that of the whole file with 64 zeros in the digest's place:

    digest = pyarrow.parquet.read_metadata(path).metadata[b"moss_tok.sha256"]
    hashlib.sha256(data.replace(digest, b"0" * 64)).hexdigest().encode() == digest

The bytes are compared before anything is parsed: a damaged footer never reaches Arrow.
"""

from __future__ import annotations

import hashlib

CHECKSUM = "moss_tok.sha256"
BLANK = "0" * 64

# What stands before the digest in the footer (Thrift's compact protocol): the header of a string, its length, the key,
# and header and length of the digest.
_ENTRY = b"\x18" + bytes([len(CHECKSUM)]) + CHECKSUM.encode() + b"\x18" + bytes([len(BLANK)])


def insert_checksum(data: bytes) -> bytes:
    """The file with its digest in place of BLANK, which the writer must have put under CHECKSUM.

    Raises ValueError if there is no such place.
    """
    start, stop = _place(data)
    if data[start:stop] != BLANK.encode():
        raise ValueError(f"{CHECKSUM} is not blank")
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[stop:]


def check_parquet(data: bytes) -> None:
    """Raises ValueError unless every byte is as `insert_checksum` left it."""
    start, stop = _place(data)
    digest = hashlib.sha256(data[:start])
    digest.update(BLANK.encode())
    digest.update(memoryview(data)[stop:])
    if digest.hexdigest().encode() != data[start:stop]:
        raise ValueError("its own checksum does not fit: it was damaged or changed after it was written")


def _place(data: bytes) -> tuple[int, int]:
    """Where the digest begins and ends.

    The last such entry is taken. The key-value metadata come after all values of rows, also those in statistics, so
    that no text of a row can stand in for it.
    """
    entry = data.rfind(_ENTRY)
    if entry < 0:
        raise ValueError("it has no checksum of its own")
    start = entry + len(_ENTRY)
    return start, start + len(BLANK)
