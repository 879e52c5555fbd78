"""Addresses and errors: what a URI stands for, and one family of errors for all kinds of storage."""

from __future__ import annotations

import contextlib
import errno
import posixpath
from collections.abc import Iterator
from typing import Any, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.client import client_options, prepare_client


class StorageError(OSError):
    """An object cannot be reached; the message names its URI and what to do."""


class StoreUnavailable(StorageError):
    """A store has not answered for as long as one call waits: the fault is more likely its own than the object's."""


class NotAnObject(StorageError):
    """No object can have this address, however often it is tried: a folder, a device, a name that no store takes."""


class DamagedObject(ValueError):
    """An object's own bytes cannot be unpacked."""


class ObjectTooLarge(ValueError):
    """An object has more bytes than the caller is ready to hold."""


def absolute(uri: str) -> str:
    """The URI in the form that every process understands: a local path absolute, no trailing slash."""
    filesystem, path = resolve(uri)
    name = path if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(path)
    return cast(str, name).rstrip("/")


def is_local(uri: str) -> bool:
    return isinstance(resolve(uri)[0], LocalFileSystem)


def join(uri: str, *parts: str) -> str:
    return posixpath.join(uri, *parts)


def resolve(uri: str) -> tuple[Any, str]:
    """The file system that holds an object, and its path there."""
    if "://" not in uri:  # fsspec would take "::" in a file's name for a chain of URIs
        return LocalFileSystem(), LocalFileSystem._strip_protocol(uri)
    _refuse_credentials(uri)
    try:
        filesystem, path = cast("tuple[Any, str]", url_to_fs(uri, **client_options(uri)))
    except ImportError as error:
        raise StorageError(f"{uri}: this kind of storage is not installed: {error}") from error
    except Exception as error:  # each kind of storage has its own errors for an address that it does not understand
        raise NotAnObject(f"{uri}: no such kind of storage: {error}") from error
    prepare_client(filesystem)
    return filesystem, path


def _refuse_credentials(uri: str) -> None:
    """URIs are written into rows, plans and messages, so that what stands in them is no secret."""
    scheme, _, rest = uri.partition("://")
    user, at, place = rest.partition("/")[0].rpartition("@")
    if at and ":" in user and scheme != "github":  # github://owner:repository@branch
        raise NotAnObject(
            f"{scheme}://…@{place}: a URI must not hold credentials, since URIs are written into the output: set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws, or what the store's client reads"
        )


ADDRESS_ERRNOS = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Numbers of errors that say that no object can have this address."""


_REMEDIES = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "PartialCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "EndpointConnectionError": "is the server up, and is AWS_ENDPOINT_URL its address?",
}
"""What to do about errors of botocore that do not tell."""


def describe_error(error: BaseException) -> str:
    """What an error says, and what to do about it."""
    words = str(error) or type(error).__name__
    remedy = _REMEDIES.get(type(error).__name__)
    return f"{words} ({remedy})" if remedy else words


@contextlib.contextmanager
def translate_errors(uri: str, action: str) -> Iterator[None]:
    """Errors of a store seldom say which object they are about, and its client library may raise any type."""
    try:
        yield
    except (StorageError, DamagedObject, MemoryError):
        raise
    except FileNotFoundError as error:
        if action == "write":
            raise StorageError(f"{uri}: cannot write there: the place does not exist and cannot be made") from error
        raise
    except PermissionError as error:
        raise StorageError(
            f"{uri}: not allowed to {action} it: check the credentials and the bucket's policy"
        ) from error
    except Exception as error:
        number = getattr(error, "errno", None)
        hopeless = type(error) is ValueError or isinstance(error, UnicodeError) or number in ADDRESS_ERRNOS
        message = f"{uri}: cannot {action} it: {describe_error(error)}"
        raise (NotAnObject if hopeless else StorageError)(message) from error
