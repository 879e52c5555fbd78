"""What is below a folder or matches a glob, and which folders there cannot be listed.

fsspec's own `find` and `glob` leave out every folder whose listing fails: no permission, a broken disk, a store that
did not answer. Here each failure is tried again where that helps, and then reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from pipeline.storage.errors import StorageError, StoreUnavailable
from pipeline.storage.location import WILDCARDS, Location, before_wildcards

Details: TypeAlias = "dict[str, dict[str, Any]]"
"""What the file system says of each path."""
OnUnreadable: TypeAlias = Callable[[StorageError], None]
"""A function that gets the error of a folder that cannot be listed."""


def find(location: Location, on_unreadable: OnUnreadable | None) -> Details:
    """All objects below the folder, or the object itself, or all that match the glob.

    Raises StorageError for a folder that cannot be listed. With `on_unreadable`, that is called instead, except for the
    top folder, and for a store that does not answer at all.
    """
    path = location.path
    if any(mark in path for mark in WILDCARDS) and not location.retry("list", location.filesystem.exists, path):
        return _glob(location, on_unreadable)
    found = _below(location, None, on_unreadable)
    if not found:  # it is an object, or nothing
        try:
            detail = location.retry("list", location.filesystem.info, path)
        except FileNotFoundError:
            return {}
        found = {path: detail} if detail["type"] != "directory" else {}
    return found


def matches(pattern: str, uri: str) -> bool:
    """Whether the glob, which may be a URI, matches this object."""
    return re.match(glob_translate(pattern), uri) is not None


def _glob(location: Location, on_unreadable: OnUnreadable | None) -> Details:
    """All objects that match a glob. `**` stands for any number of folders, the other wildcards for a part of one
    name."""
    path = location.path
    root = before_wildcards(path)
    depth = None if "**" in path else path[len(root) :].strip("/").count("/") + 1
    start = Location(location.uri_of(root or "/"), location.filesystem, root or ("/" if path[0] == "/" else ""))
    found = _below(start, depth, on_unreadable)
    return {name: detail for name, detail in found.items() if matches(path, name)}


def _below(root: Location, depth: int | None, on_unreadable: OnUnreadable | None) -> Details:
    """All objects in `depth` levels below the root, in all levels if None."""
    if depth is None and _lists_all_levels_at_once(root.filesystem):
        return cast(Details, root.retry("list", root.filesystem.find, root.path, detail=True))
    found: Details = {}
    folders = [(root.path, 1)]
    while folders:
        folder, level = folders.pop()
        for entry in _list(root, folder, on_unreadable):
            name = entry["name"].rstrip("/")
            if entry["type"] != "directory":
                found[entry["name"]] = entry
            elif name != folder.rstrip("/") and (depth is None or level < depth):
                folders.append((name, level + 1))
    return found


def _list(root: Location, folder: str, on_unreadable: OnUnreadable | None) -> list[dict[str, Any]]:
    here = Location(root.uri_of(folder), root.filesystem, folder)
    try:
        return cast("list[dict[str, Any]]", here.retry("list", here.filesystem.ls, folder, detail=True))
    except FileNotFoundError as error:
        if folder == root.path:
            return []
        raise StorageError(f"{here.uri}: gone while its folder was listed: list again once it is at rest") from error
    except StoreUnavailable:
        raise
    except StorageError as error:
        if on_unreadable is None or folder == root.path:
            raise
        on_unreadable(error)
        return []


def _lists_all_levels_at_once(filesystem: Any) -> bool:
    """Whether its `find` is one listing, which fails as a whole, and not a walk that leaves out what fails."""
    if isinstance(filesystem, AsyncFileSystem):
        return type(filesystem)._find is not AsyncFileSystem._find
    return type(filesystem).find is not AbstractFileSystem.find
