"""Whole objects, seekable streams, and many small objects a few at a time."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, TypeAlias, cast

from pipeline.storage.address import DamagedObject, NotAnObject, ObjectTooLarge, StorageError, resolve, translate_errors
from pipeline.storage.client import serves_ranges
from pipeline.storage.retrying import with_retries
from pipeline.storage.streaming import RangedStream, fetcher

STREAM_BUFFER = 2**20
READ_AHEAD = 8  # small objects are latency, not bandwidth
AHEAD_BYTES = 256 * 2**20


def open_read(uri: str) -> BinaryIO:
    """A seekable, buffered stream of an object, unpacked if its name ends in .gz or .tgz.

    On an object store the object comes in ranges, some of them ahead of the reader; it is never in memory as a whole.

    Whatever the store does wrong while it is read is a StorageError, so that nobody takes it for a damaged object;
    what cannot be unpacked is a DamagedObject.
    """
    filesystem, path = resolve(uri)
    stream = _NamedStream(with_retries(filesystem, uri, "read", lambda: _open(filesystem, path, uri)), uri)
    return cast(BinaryIO, io.BufferedReader(stream, STREAM_BUFFER))


def _open(filesystem: Any, path: str, uri: str) -> BinaryIO:
    if not serves_ranges(filesystem):
        return cast(BinaryIO, filesystem.open(path, "rb"))
    return _stream(filesystem, path, uri, _info(filesystem, path, uri))


def _info(filesystem: Any, path: str, uri: str) -> dict[str, Any]:
    info = cast("dict[str, Any]", filesystem.info(path))
    if info["type"] != "file":
        raise NotAnObject(f"{uri}: not a file but a {info['type']}")
    return info


def _stream(filesystem: Any, path: str, uri: str, info: dict[str, Any]) -> BinaryIO:
    return cast(BinaryIO, RangedStream(fetcher(filesystem, path, uri, info.get("ETag")), info["size"]))


def read_bytes(uri: str, max_bytes: int | None = None) -> bytes:
    """The whole object.

    Raises FileNotFoundError if it does not exist, NotAnObject if nothing at this address ever could, ObjectTooLarge if
    it has more than `max_bytes`.
    """
    filesystem, path = resolve(uri)
    data = with_retries(filesystem, uri, "read", lambda: _read(filesystem, path, uri, max_bytes))
    if max_bytes is not None and isinstance(data, int):
        raise ObjectTooLarge(f"{data} bytes, and {max_bytes} are allowed")
    return cast(bytes, data)


def _read(filesystem: Any, path: str, uri: str, max_bytes: int | None) -> bytes | int:
    """The object, or its size where that is too large."""
    in_ranges = serves_ranges(filesystem)
    if max_bytes is None and not in_ranges:
        return cast(bytes, filesystem.cat_file(path))
    info = _info(filesystem, path, uri)
    if max_bytes is not None and info["size"] is not None and info["size"] > max_bytes:
        return cast(int, info["size"])
    if in_ranges:
        with _stream(filesystem, path, uri, info) as stream:
            return stream.read()
    if info["size"] is not None:
        data = cast(bytes, filesystem.cat_file(path))
    else:  # a web server may keep it to itself
        with filesystem.open(path, "rb") as file:
            data = cast(bytes, file.read(cast(int, max_bytes) + 1))
    return data if len(data) <= cast(int, max_bytes) else len(data)


Fetched: TypeAlias = "bytes | FileNotFoundError | NotAnObject | ObjectTooLarge | None"


def read_ahead(uris: Iterable[str | None], max_bytes: int) -> Iterator[Fetched]:
    """`read_bytes` of each URI in order, a few at a time; for an object that cannot be had, the reason is the result.

    None gives None, so that the results keep step with whatever the URIs came from. Up to READ_AHEAD objects are held
    beside the one that is given, and of large ones as many as fit AHEAD_BYTES, one at least, going by the latest.
    """

    def fetch(uri: str | None) -> Fetched:
        try:
            return None if uri is None else read_bytes(uri, max_bytes)
        except (FileNotFoundError, NotAnObject, ObjectTooLarge) as error:
            return error

    pending: deque[Future[Fetched]] = deque()
    ahead = 1
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for uri in uris:
            pending.append(pool.submit(fetch, uri))
            while len(pending) > ahead:
                result = pending.popleft().result()
                size = len(result) if isinstance(result, bytes) else 0
                ahead = max(1, min(READ_AHEAD, AHEAD_BYTES // max(1, size)))
                yield result
        while pending:
            yield pending.popleft().result()


class _NamedStream(io.RawIOBase):
    """A stream whose errors name its object."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._raw = file
        self._file = file
        self._read = file.read
        if uri.endswith((".gz", ".tgz")):
            unpacked = gzip.GzipFile(fileobj=file)
            self._file = cast(BinaryIO, unpacked)
            self._read = unpacked.read1  # what comes before damage; read would raise, and drop it
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._errors():
            data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._errors():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        self._raw.close()
        super().close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with translate_errors(self._uri, "read"):
            try:
                yield
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise DamagedObject(f"cannot be unpacked: {error}") from error
            except FileNotFoundError as error:
                raise StorageError(f"{self._uri}: gone while it was read") from error
