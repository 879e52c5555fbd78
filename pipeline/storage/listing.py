"""What is there."""

from __future__ import annotations

import inspect
import logging
import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.address import NotAnObject, resolve
from pipeline.storage.retrying import with_retries

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


def list_objects(pattern: str) -> list[ObjectInfo]:
    """The files that a URI, a folder (recursively) or a glob stands for, sorted by URI. Empty if there are none.

    Below the folder or glob, names with a leading dot are left out, and folders of such names with all that is in them:
    some belong to files that are still being written. Local links to files are followed, those to folders are not.
    """
    filesystem, path = resolve(pattern)
    found = with_retries(filesystem, pattern, "list", lambda: _find(filesystem, path))
    infos = []
    for name, detail in found.items():
        if detail.get("islink"):
            detail = _follow(filesystem, name, detail)
        if detail["type"] == "file" and not _is_folder_marker(name) and not _hidden(name, path):
            infos.append(_info(filesystem, name, detail))
    return sorted(infos, key=lambda info: info.uri)


def _find(filesystem: Any, path: str) -> dict[str, dict[str, Any]]:
    globs = any(mark in path for mark in "*?[") and not filesystem.exists(path)
    return cast("dict[str, dict[str, Any]]", (filesystem.glob if globs else filesystem.find)(path, detail=True))


def _is_folder_marker(name: str) -> bool:
    """Whether this is the empty object that consoles, and some stores, put where a folder is to be shown."""
    return name.endswith("/")


def _hidden(name: str, pattern: str) -> bool:
    """Whether a part of the name that the pattern does not spell out has a leading dot."""
    if "/." not in f"/{name}":
        return False  # as nearly always
    pairs = zip_longest(name.split("/"), pattern.split("/"), fillvalue="")
    return any(part.startswith(".") and part != given for part, given in pairs)


def changed(then: str, now: str) -> bool:
    """Whether two versions of an object are of different content, as far as both tell."""
    if then.endswith("-None") or now.endswith("-None"):  # a listing may know less than a look at the object
        return then.partition("-")[0] != now.partition("-")[0]
    return then != now


def stat(uri: str) -> ObjectInfo | None:
    """What the store says of one object; None if it does not exist."""
    filesystem, path = resolve(uri)
    try:
        return _info(filesystem, path, with_retries(filesystem, uri, "read", lambda: filesystem.info(path)))
    except FileNotFoundError:
        return None


def stat_all(uris: Iterable[str]) -> list[ObjectInfo | None]:
    """`stat` of each, in order, a few at a time; None for a link that leads round in a circle and the like, too."""

    def look(uri: str) -> ObjectInfo | None:
        try:
            return stat(uri)
        except NotAnObject:
            return None

    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return list(pool.map(look, uris))


def list_names(folder: str, prefixes: Sequence[str] = ()) -> set[str]:
    """Names of the objects directly in a folder; empty if there is no such folder.

    Object stores list a thousand names at a time, one request after the other. Where there are many, and each of the
    wanted names begins with one of `prefixes`, those are listed at the same time. Stores that cannot list by prefix,
    and local disks, list everything at once.
    """
    filesystem, path = resolve(folder)
    filesystem.invalidate_cache(path)

    def names_with(prefix: str) -> set[str]:
        found = with_retries(filesystem, folder, "list", lambda: filesystem.find(path, prefix=prefix))
        return {posixpath.basename(name) for name in found if not _is_folder_marker(name)}

    if prefixes and "prefix" in inspect.signature(filesystem.find).parameters:
        with ThreadPoolExecutor(LIST_THREADS) as pool:
            return set().union(*pool.map(names_with, prefixes))
    try:
        names = with_retries(filesystem, folder, "list", lambda: filesystem.ls(path, detail=False))
    except FileNotFoundError:
        return set()
    return {posixpath.basename(name) for name in names if not _is_folder_marker(name)}


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
