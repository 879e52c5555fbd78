"""Whole objects, parts of them, seekable streams, and many small objects a few at a time."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias, cast

from pipeline.storage.allowed import AllowedPlaces, store_of
from pipeline.storage.errors import (
    DamagedObject,
    NotAFile,
    NotAnObject,
    ObjectTooLarge,
    StorageError,
    StoreUnavailable,
    Unreachable,
    translate_errors,
)
from pipeline.storage.location import Location
from pipeline.storage.on_disk import FileOnDisk, copy_of, open_local
from pipeline.storage.streaming import RangedStream, fetcher

STREAM_BUFFER = 2**20
READ_AHEAD = 8  # small objects cost latency, not bandwidth
AHEAD_BYTES = 256 * 2**20


def open_read(uri: str) -> BinaryIO:
    """A seekable, buffered stream of an object, unpacked if its name ends in .gz or .tgz.

    On an object store the object comes in ranges, some of them ahead of the reader; it is never in memory as a whole.

    Reading raises StorageError for whatever the store does wrong, so that nobody takes it for a damaged object, and
    DamagedObject for what cannot be unpacked. Raises FileNotFoundError if there is no such object.
    """
    location = Location.of(uri)
    stream = _NamedStream(location.retry("read", _open, location), uri)
    return cast(BinaryIO, io.BufferedReader(stream, STREAM_BUFFER))


def read_bytes(uri: str, max_bytes: int | None = None, places: AllowedPlaces | None = None) -> bytes:
    """The whole object. `places` is that of `Location.of`.

    Raises FileNotFoundError if it does not exist, NotAnObject if nothing at this address ever could, ObjectTooLarge if
    it has more than `max_bytes`.
    """
    location = Location.of(uri, places)
    return location.retry("read", _read, location, max_bytes)


def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes [start, stop) of each range, in order; a remote store is asked for all of them at once.

    Raises FileNotFoundError if there is no such object, StorageError if it holds less than was asked for.
    """
    if not ranges:
        return []
    location = Location.of(uri)
    starts, stops = map(list, zip(*ranges, strict=True))
    paths = [location.path] * len(ranges)
    parts: list[bytes] = location.retry("read", location.filesystem.cat_ranges, paths, starts, stops, on_error="raise")
    for (start, stop), part in zip(ranges, parts, strict=True):
        if len(part) != stop - start:
            raise StorageError(f"{uri}: {len(part)} bytes from {start} on, and {stop - start} were asked for")
    return parts


def open_on_disk(uri: str, max_bytes: int, places: AllowedPlaces | None = None) -> FileOnDisk:
    """The whole object as a file of this machine, where it is too large for memory. Raises what `read_bytes` does."""
    location = Location.of(uri, places)
    return location.retry("read", _open_on_disk, location, max_bytes)


@dataclass(frozen=True, slots=True)
class LargeObject:
    """An object that `read_ahead` gives as a FileOnDisk."""

    uri: str
    max_bytes: int


Fetched: TypeAlias = (
    "bytes | FileOnDisk | FileNotFoundError | NotAnObject | ObjectTooLarge | Unreachable | StoreUnavailable | None"
)


def read_ahead(
    uris: Iterable[str | LargeObject | None], max_bytes: int, places: AllowedPlaces | None = None
) -> Iterator[Fetched]:
    """`read_bytes` of each URI in order, a few at a time. If an object cannot be read, the result is the error.

    None gives None, so that results and URIs stay in step. Up to READ_AHEAD objects are held besides the current one.
    Of large objects it is as many as fit in AHEAD_BYTES, estimated from the size of the latest, but at least one.

    `places` is given for the URIs of an input list, each of which may be in another store. Then a store that cannot be
    reached is also a result, and a store that did not answer is not asked again.
    """
    silent: dict[str, StoreUnavailable] = {}

    def fetch(wanted: str | LargeObject | None) -> Fetched:
        if wanted is None:
            return None
        store = store_of(wanted.uri if isinstance(wanted, LargeObject) else wanted)
        if store in silent:
            return silent[store]
        try:
            if isinstance(wanted, LargeObject):
                return open_on_disk(wanted.uri, wanted.max_bytes, places)
            return read_bytes(wanted, max_bytes, places)
        except (FileNotFoundError, NotAnObject, ObjectTooLarge) as error:
            return error
        except (Unreachable, StoreUnavailable) as error:
            if places is None:
                raise
            if isinstance(error, StoreUnavailable):
                silent[store] = error
            return error

    pending: deque[Future[Fetched]] = deque()
    ahead = 1
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for uri in uris:
            pending.append(pool.submit(fetch, uri))
            while len(pending) > ahead:
                result = pending.popleft().result()
                size = len(result) if isinstance(result, bytes | FileOnDisk) else 0
                ahead = max(1, min(READ_AHEAD, AHEAD_BYTES // max(1, size)))
                yield result
        while pending:
            yield pending.popleft().result()


def _open_on_disk(location: Location, max_bytes: int) -> FileOnDisk:
    info = _info(location)
    if info["size"] is not None:
        _check_size(info["size"], max_bytes)
    if location.is_local:
        return open_local(location.path, max_bytes)
    with _open(location) if location.serves_ranges else location.filesystem.open(location.path, "rb") as stream:
        return copy_of(stream, max_bytes)


def _open(location: Location) -> BinaryIO:
    if location.serves_ranges:
        return _open_ranges(location, _info(location))
    if location.is_local:
        _info(location)  # to open a pipe would wait for somebody to write
    return cast(BinaryIO, location.filesystem.open(location.path, "rb"))


def _open_ranges(location: Location, info: dict[str, Any]) -> BinaryIO:
    return cast(BinaryIO, RangedStream(fetcher(location, info.get("ETag")), info["size"]))


def _info(location: Location) -> dict[str, Any]:
    info = cast("dict[str, Any]", location.filesystem.info(location.path))
    if info["type"] == "other":
        raise NotAFile(f"{location.uri}: a device, a pipe or a socket, which is never opened")
    if info["type"] != "file":
        raise NotAnObject(f"{location.uri}: not a file but a {info['type']}")
    return info


def _read(location: Location, max_bytes: int | None) -> bytes:
    if max_bytes is None and not location.serves_ranges and not location.is_local:
        return cast(bytes, location.filesystem.cat_file(location.path))
    info = _info(location)
    size: int | None = info["size"]  # None where a web server does not tell it
    if size is not None:
        _check_size(size, max_bytes)
    if location.serves_ranges:
        with _open_ranges(location, info) as stream:
            return stream.read()
    if size is not None:
        data = cast(bytes, location.filesystem.cat_file(location.path))
    else:
        with location.filesystem.open(location.path, "rb") as file:
            data = cast(bytes, file.read(-1 if max_bytes is None else max_bytes + 1))
    _check_size(len(data), max_bytes)
    return data


def _check_size(size: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise ObjectTooLarge(f"{size} bytes, and {max_bytes} are allowed")


class _NamedStream(io.RawIOBase):
    """A stream whose errors name its object."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._raw = file
        self._file = file
        self._read = file.read
        if uri.endswith((".gz", ".tgz")):
            unpacked = gzip.GzipFile(fileobj=file)
            self._file = cast(BinaryIO, unpacked)
            self._read = unpacked.read1  # gives what comes before the damage, where `read` would raise and drop it
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
