"""Where an object is: a URI, the file system that it stands for, and the path there."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.redaction import redact_uri
from pipeline.storage.allowed import AllowedPlaces, checking_client, kind_of
from pipeline.storage.client import client_options, is_s3, prepare_client, serves_ranges
from pipeline.storage.errors import (
    MISSING_STATUS,
    NotAnObject,
    StorageError,
    Unreachable,
    harmless,
    status_and_code,
    translate_errors,
)
from pipeline.storage.retrying import with_retries

Result = TypeVar("Result")

WILDCARDS = "*?["
WRITE_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 100_000.0
"""A write of an object may take WRITE_SECONDS and the time that its bytes take at this rate."""


@dataclass(frozen=True, slots=True)
class Location:
    """The place of one object or folder. Made by `Location.of`."""

    uri: str
    """The URI as it is shown to people and in messages, with secrets removed."""
    filesystem: Any
    """An fsspec file system."""
    path: str
    """The path in that file system."""

    @classmethod
    def of(cls, uri: str, places: AllowedPlaces | None = None) -> Location:
        """The location that a URI or a local path stands for.

        `places` is given if an input list names the URI. Then the URI may hold a secret, which is sent to the store and
        nowhere else, and must lie in these places.

        Raises Unreachable if this kind of storage is not installed, StoreUnavailable if its server does not answer,
        NotAllowed if the place is not allowed, NotAnObject if the URI cannot be understood or holds a secret and must
        not.
        """
        shown = redact_uri(uri)
        if places is not None:
            places.check(uri)
        elif shown != uri:
            raise NotAnObject(_no_secrets(shown))
        if "://" not in uri:  # fsspec would take "::" in a file's name for a chain of URIs
            return cls(uri, LocalFileSystem(), LocalFileSystem._strip_protocol(uri))
        options = client_options(uri)
        if places is not None and is_web(uri):
            options["get_client"] = partial(checking_client, places)
        filesystem, path = _connect(uri, shown, options)
        prepare_client(filesystem, path)
        return cls(shown, filesystem, path)

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def is_s3(self) -> bool:
        return is_s3(self.filesystem)

    @property
    def serves_ranges(self) -> bool:
        """Whether parts of an object can be fetched at the same time."""
        return serves_ranges(self.filesystem)

    @property
    def bucket(self) -> str:
        """The first part of the path: what a store calls a bucket."""
        return self.path.partition("/")[0]

    def uri_of(self, path: str) -> str:
        """The URI of another path of the same file system; a local path has no scheme."""
        return path if self.is_local else cast(str, self.filesystem.unstrip_protocol(path))

    def child(self, name: str) -> Location:
        """The object of this name in the folder that this location is."""
        return Location.of(join(self.uri, name))

    def put(self, data: bytes, **options: Any) -> None:
        """Write `data` as the object, in one attempt."""
        self.filesystem.pipe_file(self.path, data, **self._write_limit(len(data)), **options)

    def put_file(self, source: str) -> None:
        """Write the file at the local path `source` as the object, in one attempt."""
        self.filesystem.put_file(source, self.path, **self._write_limit(os.path.getsize(source)))

    def _write_limit(self, size: int) -> dict[str, float]:
        """The time limit of a write, as an option of the file system.

        The client asks S3 whether to send the body (`Expect: 100-continue`) and waits for the answer without any limit.
        """
        return {"timeout": WRITE_SECONDS + size / SLOWEST_BYTES_PER_SECOND} if self.is_s3 else {}

    def retry(self, action: str, call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """What `call(*arguments, **options)` returns. The call is repeated until it succeeds or cannot succeed.

        Errors name the object. A local disk is asked once, because there a second try has the same result.
        """
        once = partial(call, *arguments, **options)
        if is_web(self.uri):
            once = partial(_unmasked, once)
        with translate_errors(self.uri, action):
            return once() if self.is_local else with_retries(self.uri, action, once)


def absolute(uri: str) -> str:
    """The URI in the form that every process understands: a local path absolute, no trailing slash."""
    location = Location.of(uri)
    return location.uri_of(location.path).rstrip("/")


def is_local(uri: str) -> bool:
    return Location.of(uri).is_local


def join(uri: str, *parts: str) -> str:
    return posixpath.join(uri, *parts)


def root_of(pattern: str) -> str:
    """The folder or the object that a pattern begins with, which is the whole pattern if it has no wildcard."""
    location = Location.of(pattern)
    path = location.uri_of(location.path)
    if location.is_local and posixpath.lexists(path):
        return path  # the name of a file may hold the letters of a wildcard
    return before_wildcards(path)


def before_wildcards(pattern: str) -> str:
    """The folder that a glob begins with; the whole of a path without wildcards."""
    first = min((pattern.index(mark) for mark in WILDCARDS if mark in pattern), default=None)
    return pattern if first is None else pattern[:first].rpartition("/")[0]


def relative(uri: str, folder: str) -> str:
    """The path of an object below a folder, both as this package spells them. Raises ValueError if it is not there."""
    prefix = f"{folder.rstrip('/')}/"
    if not uri.startswith(prefix):
        raise ValueError(f"{uri} is not below {folder}")
    return uri[len(prefix) :]


def is_web(uri: str) -> bool:
    return kind_of(uri) in ("http", "https")


def _connect(uri: str, shown: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The file system and the path there. For some kinds of storage this connects to the server already."""
    connect = partial(url_to_fs, uri, **options)
    try:
        try:
            return cast("tuple[Any, str]", connect())
        except (FileNotFoundError, PermissionError):
            raise
        except (OSError, EOFError):
            with translate_errors(shown, "reach"):
                return cast("tuple[Any, str]", with_retries(shown, "reach", connect))
    except StorageError:
        raise
    except ImportError as error:
        raise Unreachable(f"{shown}: this kind of storage is not installed: {error}") from error
    except Exception as error:  # each kind of storage has its own errors for an address that it does not understand
        raise NotAnObject(f"{shown}: no such kind of storage: {error}") from harmless(error)


def _unmasked(call: Callable[[], Result]) -> Result:
    """What `call` returns, or the true error: fsspec reports every failure of a web server as a file that is not
    there."""
    try:
        return call()
    except FileNotFoundError as error:
        if error.__cause__ is None or status_and_code(error)[0] in MISSING_STATUS:
            raise
        cause = error.__cause__
    raise cause


def _no_secrets(shown: str) -> str:
    return (
        f"{shown}: it was given with a password, a signature or a token, which would be written into the output: let "
        "the store's client find its credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws, "
        "FSSPEC_…), or name the audio files in an input list, from which secrets go no further"
    )
