"""What is in a folder or matches a glob, and what the store says of each object."""

from __future__ import annotations

import inspect
import logging
import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

from pipeline.storage.errors import NotAnObject
from pipeline.storage.location import Location
from pipeline.storage.walk import OnUnreadable, find

STAT_THREADS = 16
LIST_THREADS = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing says of an object."""

    uri: str
    size: int
    """Bytes."""
    version: str
    """ETag, or size and modification time: changes when the object does."""


def list_objects(pattern: str, on_unreadable: OnUnreadable | None = None) -> list[ObjectInfo]:
    """The files that a URI, a folder (recursively) or a glob stands for, sorted by URI. Empty if there are none.

    Below the folder or glob, names with a leading dot are left out, and folders of such names with all that is in them:
    some belong to files that are still being written. Local links to files are followed, those to folders are not.
    Devices, pipes and sockets are listed, since they have names of files; to read one is a NotAFile.
    Raises StorageError for a folder that cannot be listed, unless `on_unreadable` is to be told of it instead.
    """
    location = Location.of(pattern)
    infos = []
    for path, detail in find(location, on_unreadable).items():
        if detail.get("islink"):
            detail = _follow(location, path, detail)
        if detail["type"] in ("file", "other") and not _is_folder_marker(path) and not _hidden(path, location.path):
            infos.append(_info(location, path, detail))
    return sorted(infos, key=lambda info: info.uri)


def stat(uri: str) -> ObjectInfo | None:
    """What the store says of one object; None if it does not exist."""
    location = Location.of(uri)
    try:
        detail = location.retry("read", location.filesystem.info, location.path)
    except FileNotFoundError:
        return None
    return _info(location, location.path, detail)


def is_object(uri: str) -> bool:
    """Whether there is an object at this address, and not a folder, a device or nothing."""
    location = Location.of(uri)
    try:
        detail = location.retry("read", location.filesystem.info, location.path)
    except FileNotFoundError:
        return False
    return bool(detail["type"] == "file")


def stat_all(uris: Iterable[str]) -> list[ObjectInfo | None]:
    """`stat` of each, in order, a few at a time. None also for what no object can be, such as a circle of links."""

    def stat_or_none(uri: str) -> ObjectInfo | None:
        try:
            return stat(uri)
        except NotAnObject:
            return None

    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return list(pool.map(stat_or_none, uris))


def changed(then: str, now: str) -> bool:
    """Whether two versions of an object are of different content, as far as both tell."""
    if then.endswith("-None") or now.endswith("-None"):  # a listing may know less than a request for the object
        return then.partition("-")[0] != now.partition("-")[0]
    return then != now


def list_names(folder: str, prefixes: Sequence[str] = ()) -> set[str]:
    """Names of the objects directly in a folder; empty if there is no such folder.

    Object stores list a thousand names at a time, one request after the other. Where there are many, and each of the
    wanted names begins with one of `prefixes`, those are listed at the same time. Stores that cannot list by prefix,
    and local disks, list everything at once.
    """
    location = Location.of(folder)
    filesystem, path = location.filesystem, location.path
    filesystem.invalidate_cache(path)

    def names_with(prefix: str) -> set[str]:
        return _names(location.retry("list", filesystem.find, path, prefix=prefix))

    if prefixes and "prefix" in inspect.signature(filesystem.find).parameters:
        with ThreadPoolExecutor(LIST_THREADS) as pool:
            return set().union(*pool.map(names_with, prefixes))
    try:
        return _names(location.retry("list", filesystem.ls, path, detail=False))
    except FileNotFoundError:
        return set()


def _names(paths: Iterable[str]) -> set[str]:
    return {posixpath.basename(path) for path in paths if not _is_folder_marker(path)}


def _is_folder_marker(path: str) -> bool:
    """Whether this is the empty object that consoles, and some stores, put where a folder is to be shown."""
    return path.endswith("/")


def _hidden(path: str, pattern: str) -> bool:
    """Whether a part of the path that the pattern does not spell out has a leading dot."""
    if "/." not in f"/{path}":
        return False  # the usual case, without splitting
    pairs = zip_longest(path.split("/"), pattern.split("/"), fillvalue="")
    return any(part.startswith(".") and part != given for part, given in pairs)


def _follow(location: Location, path: str, link: dict[str, Any]) -> dict[str, Any]:
    """What a local link leads to. A link that leads nowhere stays, so that its name is reported when it is read."""
    try:
        detail = cast("dict[str, Any]", location.filesystem.info(path))
    except OSError:
        return link | {"type": "file"}
    if detail["type"] == "directory":
        logger.warning("%s: a link to a folder, which is not followed", path)
    return detail


def _info(location: Location, path: str, detail: dict[str, Any]) -> ObjectInfo:
    size = int(detail.get("size") or 0)
    version = detail.get("ETag") or detail.get("etag") or detail.get("mtime") or detail.get("LastModified")
    return ObjectInfo(uri=location.uri_of(path), size=size, version=f"{size}-{str(version).strip(chr(34))}")
