"""Where an object is: a URI, the file system that it stands for, and the path there."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.client import client_options, is_s3, prepare_client, serves_ranges
from pipeline.storage.errors import NotAnObject, StorageError, translate_errors
from pipeline.storage.retrying import with_retries

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Location:
    """The place of one object or folder. Made by `Location.of`."""

    uri: str
    filesystem: Any
    """An fsspec file system."""
    path: str
    """The path in that file system."""

    @classmethod
    def of(cls, uri: str) -> Location:
        """The location that a URI or a local path stands for.

        Raises StorageError if this kind of storage is not installed, NotAnObject if the URI cannot be understood or
        holds credentials.
        """
        if "://" not in uri:  # fsspec would take "::" in a file's name for a chain of URIs
            return cls(uri, LocalFileSystem(), LocalFileSystem._strip_protocol(uri))
        _refuse_credentials(uri)
        try:
            filesystem, path = cast("tuple[Any, str]", url_to_fs(uri, **client_options(uri)))
        except ImportError as error:
            raise StorageError(f"{uri}: this kind of storage is not installed: {error}") from error
        except (
            Exception
        ) as error:  # each kind of storage raises its own errors for an address that it does not understand
            raise NotAnObject(f"{uri}: no such kind of storage: {error}") from error
        prepare_client(filesystem)
        return cls(uri, filesystem, path)

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

    def retry(self, action: str, call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """What `call(*arguments, **options)` returns. The call is repeated until it succeeds or cannot succeed.

        Errors name the object. A local disk is asked once, because there a second try has the same result.
        """
        once = partial(call, *arguments, **options)
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


def relative(uri: str, folder: str) -> str:
    """The path of an object below a folder, both as this package spells them. Raises ValueError if it is not there."""
    prefix = f"{folder.rstrip('/')}/"
    if not uri.startswith(prefix):
        raise ValueError(f"{uri} is not below {folder}")
    return uri[len(prefix) :]


def _refuse_credentials(uri: str) -> None:
    """URIs are written into rows, plans and messages, so they must not hold a secret."""
    scheme, _, rest = uri.partition("://")
    user, at, place = rest.partition("/")[0].rpartition("@")
    if at and ":" in user and scheme != "github":  # github://owner:repository@branch
        raise NotAnObject(
            f"{scheme}://…@{place}: a URI must not hold credentials, since URIs are written into the output: set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws, or what the store's client reads"
        )
