"""Object storage and local files behind one small set of functions: the only module that talks to fsspec.

Every address is a URI: `s3://bucket/key`, `hf://datasets/…`, or a local path (made absolute, without a scheme).
Publishing is all or nothing: a reader finds the whole object or none.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import logging
import os
import posixpath
import secrets
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

logger = logging.getLogger(__name__)

STREAM_BUFFER = 2**20
READ_AHEAD = 8  # small objects are latency, not bandwidth


class StorageError(OSError):
    """An object cannot be reached; the message names its URI and what to do."""


class NotAnObject(StorageError):
    """No object can have this address, however often it is tried: a folder, a device, a name that no store takes."""


class DamagedObject(ValueError):
    """An object's own bytes cannot be unpacked."""


class ObjectTooLarge(ValueError):
    """An object has more bytes than the caller is ready to hold."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing says of an object."""

    uri: str
    size: int
    """Bytes."""
    version: str
    """ETag, or size and modification time: changes when the object does."""


def absolute(uri: str) -> str:
    """The URI in the form that every process understands: a local path absolute, no trailing slash."""
    filesystem, path = _resolve(uri)
    name = path if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(path)
    return cast(str, name).rstrip("/")


def is_local(uri: str) -> bool:
    return isinstance(_resolve(uri)[0], LocalFileSystem)


def join(uri: str, *parts: str) -> str:
    return posixpath.join(uri, *parts)


def list_objects(pattern: str) -> list[ObjectInfo]:
    """The files that a URI, a folder (recursively) or a glob stands for, sorted by URI. Empty if there are none.

    Names with a leading dot are left out: some belong to files that are still being written. Local links to files are
    followed, those to folders are not.
    """
    filesystem, path = _resolve(pattern)
    with _named(pattern, "list"):
        if any(mark in path for mark in "*?[") and not filesystem.exists(path):
            found = filesystem.glob(path, detail=True)
        else:
            found = filesystem.find(path, detail=True)
    infos = []
    for name, detail in found.items():
        if detail.get("islink"):
            detail = _follow(filesystem, name, detail)
        if detail["type"] == "file" and (name == path or not posixpath.basename(name).startswith(".")):
            infos.append(_info(filesystem, name, detail))
    return sorted(infos, key=lambda info: info.uri)


def stat(uri: str) -> ObjectInfo | None:
    """What the store says of one object; None if it does not exist."""
    filesystem, path = _resolve(uri)
    with _named(uri, "read"):
        try:
            return _info(filesystem, path, filesystem.info(path))
        except FileNotFoundError:
            return None


def list_names(folder: str) -> set[str]:
    """Names of the objects directly in a folder; empty if there is no such folder."""
    filesystem, path = _resolve(folder)
    with _named(folder, "list"):
        filesystem.invalidate_cache(path)
        try:
            return {posixpath.basename(name) for name in filesystem.ls(path, detail=False)}
        except FileNotFoundError:
            return set()


def open_read(uri: str) -> BinaryIO:
    """A seekable, buffered stream of an object, unpacked if its name ends in .gz.

    Whatever the store does wrong while it is read is a StorageError, so that nobody takes it for a damaged object;
    what cannot be unpacked is a DamagedObject.
    """
    filesystem, path = _resolve(uri)
    with _named(uri, "read"):
        stream = _NamedStream(filesystem.open(path, "rb"), uri)
    return cast(BinaryIO, io.BufferedReader(stream, STREAM_BUFFER))


def read_bytes(uri: str, max_bytes: int | None = None) -> bytes:
    """The whole object.

    Raises FileNotFoundError if it does not exist, NotAnObject if nothing at this address ever could, ObjectTooLarge if
    it has more than `max_bytes`.
    """
    filesystem, path = _resolve(uri)
    with _named(uri, "read"):
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


def publish(uri: str, data: bytes) -> None:
    """Make `data` the object at `uri`, whole or not at all; an object that is there already is replaced."""
    filesystem, path = _resolve(uri)
    with _named(uri, "write"):
        if isinstance(filesystem, LocalFileSystem):
            _publish_local(path, data)
        else:
            filesystem.pipe_file(path, data)  # one PUT, or a multipart upload that is complete or absent


def remove(uri: str) -> None:
    """Delete the object; nothing happens if it is not there."""
    filesystem, path = _resolve(uri)
    with _named(uri, "delete"), contextlib.suppress(FileNotFoundError):
        filesystem.rm_file(path)


def _publish_local(path: str, data: bytes) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # The leading dot keeps readers that glob *.parquet away from a file that is still being written.
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    descriptor = os.open(folder, os.O_RDONLY)  # the rename itself lasts only once the folder is on disk
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _resolve(uri: str) -> tuple[Any, str]:
    if "://" not in uri:  # fsspec would take "::" in a file's name for a chain of URIs
        return LocalFileSystem(), LocalFileSystem._strip_protocol(uri)
    try:
        return cast("tuple[Any, str]", url_to_fs(uri))
    except ImportError as error:
        raise StorageError(f"{uri}: this kind of storage is not installed: {error}") from error
    except Exception as error:  # each kind of storage has its own errors for an address that it does not understand
        raise NotAnObject(f"{uri}: no such kind of storage: {error}") from error


def _follow(filesystem: Any, path: str, link: dict[str, Any]) -> dict[str, Any]:
    """What a local link leads to; a link that leads nowhere stays, to be missed by name when it is read."""
    try:
        detail = cast("dict[str, Any]", filesystem.info(path))
    except OSError:
        return link | {"type": "file"}
    if detail["type"] == "directory":
        logger.warning("%s: a link to a folder, which is not followed", path)
    return detail


def _info(filesystem: Any, path: str, detail: dict[str, Any]) -> ObjectInfo:
    local = isinstance(filesystem, LocalFileSystem)
    size = int(detail.get("size") or 0)
    version = detail.get("ETag") or detail.get("etag") or detail.get("mtime") or detail.get("LastModified")
    return ObjectInfo(
        uri=path if local else filesystem.unstrip_protocol(path),
        size=size,
        version=f"{size}-{str(version).strip(chr(34))}",
    )


class _NamedStream(io.RawIOBase):
    """A stream whose errors name its object."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._raw = file
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if uri.endswith(".gz") else file
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
        with _named(self._uri, "read"):
            try:
                yield
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise DamagedObject(f"cannot be unpacked: {error}") from error
            except FileNotFoundError as error:
                raise StorageError(f"{self._uri}: gone while it was read") from error


_HOPELESS = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


@contextlib.contextmanager
def _named(uri: str, action: str) -> Iterator[None]:
    """Errors of a store seldom say which object they are about, and its client library may raise any type."""
    try:
        yield
    except (FileNotFoundError, StorageError, DamagedObject, MemoryError):
        raise
    except PermissionError as error:
        raise StorageError(
            f"{uri}: not allowed to {action} it: check the credentials and the bucket's policy"
        ) from error
    except Exception as error:
        hopeless = isinstance(error, ValueError) or getattr(error, "errno", None) in _HOPELESS
        raise (NotAnObject if hopeless else StorageError)(f"{uri}: cannot {action} it: {error}") from error
