"""Where an input list may point: the list of a stranger must not make this machine read its own secrets.

A file that an input list names must be below an allowed place, after links and `..` are resolved, and a web server may
redirect the client to no other.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec.implementations.local import LocalFileSystem

from pipeline.redaction import redact_uri
from pipeline.storage.errors import NotAllowed

_LOCAL_KINDS = ("", "file", "local")


@dataclass(frozen=True, slots=True)
class AllowedPlaces:
    """The places that objects may be read from."""

    folders: tuple[str, ...]
    """Local folders and URIs. Each is allowed with everything below it."""
    kinds: tuple[str, ...] = ()
    """Kinds of remote storage, such as s3, of which every object is allowed."""

    def check(self, uri: str) -> None:
        """Raise NotAllowed if the object is outside of these places."""
        kind = kind_of(uri)
        if (kind in self.kinds and kind not in _LOCAL_KINDS) or self._is_below(uri):
            return
        where = f"{kind}://" if kind not in _LOCAL_KINDS else posixpath.dirname(_without_kind(uri))
        raise NotAllowed(
            f"{redact_uri(uri)}: leads out of what may be read, which is what is beside or below the input and what "
            f"input.allow names: add a folder above it there, such as {where}"
        )

    def check_redirect(self, before: str, after: str) -> None:
        """Raise NotAllowed if a server redirects the client to a host that is not among these places."""
        old, new = urlsplit(before), urlsplit(after)
        same_host = (old.hostname, old.port) == (new.hostname, new.port)
        if (same_host and old.scheme == new.scheme) or self._is_below(after):
            return
        if old.hostname == new.hostname and (old.scheme, new.scheme) == ("http", "https"):
            return
        raise NotAllowed(
            f"{redact_uri(before)}: the server sends the client on to {new.scheme}://{new.hostname}, which is not "
            "followed: name that in input.allow, or list what it leads to"
        )

    def _is_below(self, uri: str) -> bool:
        place = _normal(uri)
        return place is not None and any(_holds(_normal_folder(folder), place) for folder in self.folders)


def store_of(uri: str) -> str:
    """The server or bucket of a URI; "" for a local path."""
    kind, mark, rest = redact_uri(uri).partition("://")
    return f"{kind.lower()}://{rest.partition('/')[0]}" if mark else ""


def kind_of(uri: str) -> str:
    """The scheme of a URI; "" for a local path."""
    kind, mark, _ = uri.partition("://")
    return kind.lower() if mark else ""


def _normal(uri: str) -> tuple[str, str] | None:
    """The scheme with the host, and the path, with links and `..` resolved so that equal places are equal; None if
    there is no such place."""
    kind = kind_of(uri)
    if kind in _LOCAL_KINDS:
        path = _without_kind(uri)
        try:
            return "", os.path.realpath(path)
        except ValueError:  # no file can have this name, which reading it reports
            return "", os.path.normpath(path)
    parts = urlsplit(redact_uri(uri))
    try:
        host = f"{parts.hostname or ''}:{parts.port or ''}"
    except ValueError:
        return None
    path = posixpath.normpath("/" + unquote(unquote(parts.path)).replace("\\", "/").lstrip("/"))
    return f"{kind}://{host if kind in ('http', 'https', 'ftp') else parts.netloc}", path


@lru_cache(maxsize=64)
def _normal_folder(uri: str) -> tuple[str, str] | None:
    return _normal(uri)


def _without_kind(uri: str) -> str:
    return str(LocalFileSystem._strip_protocol(uri)) if "://" in uri else uri


def _holds(folder: tuple[str, str] | None, place: tuple[str, str]) -> bool:
    if folder is None:
        return False
    kind, path = folder
    if kind.endswith("://") or kind.endswith("://:"):  # a kind alone, such as https://
        return place[0].startswith(kind.rstrip(":"))
    return kind == place[0] and (place[1] == path or place[1].startswith(f"{path.rstrip('/')}/"))


async def checking_client(places: AllowedPlaces, **options: Any) -> Any:
    """The session of an HTTP client that follows redirects to allowed places only."""
    import aiohttp  # installed where there are web addresses, because fsspec needs it too
    from yarl import URL

    async def check(session: Any, context: Any, event: Any) -> None:
        answer = event.response
        target = answer.headers.get("Location") or answer.headers.get("URI") or ""
        places.check_redirect(str(answer.url), str(answer.url.join(URL(target))))

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    return aiohttp.ClientSession(trace_configs=[trace], **options)
