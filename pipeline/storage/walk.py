"""What lies below a folder or matches a glob, and what cannot be listed there.

fsspec's own `find` and `glob` leave out every folder whose listing fails: no permission, a broken disk, a store that
did not answer. Here each failure is tried again where that helps, and then told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from pipeline.storage.errors import StorageError, StoreUnavailable
from pipeline.storage.location import Location

Details: TypeAlias = "dict[str, dict[str, Any]]"
"""What the file system says of each path."""
OnUnreadable: TypeAlias = Callable[[StorageError], None]
"""Is told of a folder that cannot be listed, and why."""

_MARKS = "*?["


def find(location: Location, on_unreadable: OnUnreadable | None) -> Details:
    """Everything below the folder that is no folder, or the object itself, or what matches the glob.

    Raises StorageError for a folder that cannot be listed; with `on_unreadable`, this is called in place of that,
    unless it is the folder that everything was to be found in, or the store that does not answer at all.
    """
    path = location.path
    if any(mark in path for mark in _MARKS) and not location.retry("list", location.filesystem.exists, path):
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
    """Whether the glob, which may be a URI, stands for this object among others."""
    return re.match(glob_translate(pattern), uri) is not None


def _glob(location: Location, on_unreadable: OnUnreadable | None) -> Details:
    """`**` stands for any number of folders, and the other marks for what is within one name."""
    path = location.path
    before = path[: min(path.index(mark) for mark in _MARKS if mark in path)]
    root = before.rpartition("/")[0] if "/" in before else ""
    depth = None if "**" in path else path[len(root) :].strip("/").count("/") + 1
    start = Location(location.uri_of(root or "/"), location.filesystem, root or ("/" if path[0] == "/" else ""))
    found = _below(start, depth, on_unreadable)
    return {name: detail for name, detail in found.items() if matches(path, name)}


def _below(root: Location, depth: int | None, on_unreadable: OnUnreadable | None) -> Details:
    """All that is no folder in `depth` levels below the root; all levels if None."""
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
    """Whether its `find` is one listing, which fails as a whole, rather than a walk that leaves out what fails."""
    if isinstance(filesystem, AsyncFileSystem):
        return type(filesystem)._find is not AsyncFileSystem._find
    return type(filesystem).find is not AbstractFileSystem.find
