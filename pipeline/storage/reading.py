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

from pipeline.storage.address import DamagedObject, NotAnObject, ObjectTooLarge, StorageError, named, resolve

STREAM_BUFFER = 2**20
READ_AHEAD = 8  # small objects are latency, not bandwidth


def open_read(uri: str) -> BinaryIO:
    """A seekable, buffered stream of an object, unpacked if its name ends in .gz or .tgz.

    Whatever the store does wrong while it is read is a StorageError, so that nobody takes it for a damaged object;
    what cannot be unpacked is a DamagedObject.
    """
    filesystem, path = resolve(uri)
    with named(uri, "read"):
        stream = _NamedStream(filesystem.open(path, "rb"), uri)
    return cast(BinaryIO, io.BufferedReader(stream, STREAM_BUFFER))


def read_bytes(uri: str, max_bytes: int | None = None) -> bytes:
    """The whole object.

    Raises FileNotFoundError if it does not exist, NotAnObject if nothing at this address ever could, ObjectTooLarge if
    it has more than `max_bytes`.
    """
    filesystem, path = resolve(uri)
    with named(uri, "read"):
        if max_bytes is None:
            return cast(bytes, filesystem.cat_file(path))
        info = filesystem.info(path)
        if info["type"] != "file":
            raise NotAnObject(f"{uri}: not a file but a {info['type']}")
        size = info["size"]
        if size is None:  # a web server may keep it to itself
            with filesystem.open(path, "rb") as file:
                data = cast(bytes, file.read(max_bytes + 1))
            size = len(data)
        elif size <= max_bytes:
            data = cast(bytes, filesystem.cat_file(path))
    if size > max_bytes:
        raise ObjectTooLarge(f"{size} bytes, and {max_bytes} are allowed")
    return data


Fetched: TypeAlias = "bytes | FileNotFoundError | NotAnObject | ObjectTooLarge | None"


def read_ahead(uris: Iterable[str | None], max_bytes: int) -> Iterator[Fetched]:
    """`read_bytes` of each URI in order, a few at a time; for an object that cannot be had, the reason is the result.

    None gives None, so that the results keep step with whatever the URIs came from.
    """

    def fetch(uri: str | None) -> Fetched:
        try:
            return None if uri is None else read_bytes(uri, max_bytes)
        except (FileNotFoundError, NotAnObject, ObjectTooLarge) as error:
            return error

    pending: deque[Future[Fetched]] = deque()
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for uri in uris:
            pending.append(pool.submit(fetch, uri))
            if len(pending) > READ_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _NamedStream(io.RawIOBase):
    """A stream whose errors name its object."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._raw = file
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if uri.endswith((".gz", ".tgz")) else file
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._errors():
            data = self._file.read(len(buffer))
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
        with named(self._uri, "read"):
            try:
                yield
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise DamagedObject(f"cannot be unpacked: {error}") from error
            except FileNotFoundError as error:
                raise StorageError(f"{self._uri}: gone while it was read") from error
