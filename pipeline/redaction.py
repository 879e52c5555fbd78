"""Secrets in URIs: how they are found, and cut out of whatever is written, logged or shown.

A password is before the host. A signature, a token or a key is a parameter: of a request that was signed for S3
(X-Amz-…), Google (X-Goog-…), Azure (sig) and others, or one that a server has defined for itself. The rest of the URI
is the same address for everybody.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

_NAME = re.compile(
    r"""(?xi)
      ^x[-_](amz|goog|oss|obs|cos|ms|bce|tos)[-_]     # what stores add to a request that is signed
    | ^(sig|pwd|pass|key|policy|hmac|hdnts|hdnea|hdntl|ticket)$
    | (^|[-_.])sign(ed|ature)?($|[-_.])
    | signature | token | secret | passw | credential | jwt | bearer
    | (api|access|private|license|auth|session|security)[-_.]?(key|id|code)
    | (^|[-_.])o?auth(orization|entication)?($|[-_.])
    | (^|[-_.])session($|[-_.])
    | key[-_]pair[-_]id
    """
)
_USER_KINDS = ("http", "https", "ftp", "ftps", "webdav", "webdavs", "dav")
"""Kinds of storage where a user's name is a secret even without a password, because many servers take a token there."""
_PUBLIC_KINDS = ("github",)
"""Kinds of storage where it is not: github://owner:repository@branch is an address."""

_USER = re.compile(r"(?P<kind>[a-z][a-z0-9+.-]*)://(?P<user>[^\s/?#@]*@|[^\s/?#@:]+:(?!\d+(?:[/?#]|$))[^\s@]*@)+", re.I)
_PARAMETER = re.compile(r"(?P<mark>[?&;#])(?P<name>[^=&;#?\s'\"<>]{1,200})=(?P<value>[^&;#\s'\"<>]*)")
_PARAMETER_OF_A_URI = re.compile(r"(?P<mark>[?&;#])(?P<name>[^=&;#?]{1,200})=(?P<value>[^&;#]*)", re.S)


def redact(text: str) -> str:
    """Free text, such as a message, with the secrets of its URIs removed."""
    return _redact(text, _PARAMETER)


def redact_uri(uri: str) -> str:
    """One URI with its secrets removed. Spaces and quotes belong to the URI. A local path has no secrets."""
    return _redact(uri, _PARAMETER_OF_A_URI)


def has_secret(uri: str) -> bool:
    """Whether a URI holds a secret."""
    return redact_uri(uri) != uri


def _redact(text: str, parameter: re.Pattern[str]) -> str:
    if "://" not in text:
        return text
    found = _USER.sub(_without_user, text)
    if "=" not in found:
        return found
    cut = parameter.sub(_without_value, found)
    return found if cut == found else _joined_again(cut)


_CUT = "\ue000"  # marks the place of a removed parameter until the rest is joined


def _without_user(match: re.Match[str]) -> str:
    kind = match["kind"].lower()
    if kind in _PUBLIC_KINDS or (kind not in _USER_KINDS and ":" not in match["user"]):
        return match[0]
    return f"{match['kind']}://"


def _without_value(match: re.Match[str]) -> str:
    name, value = unquote_plus(match["name"]), match["value"]
    inner = unquote(unquote(value)) if "%" in value else ""
    if _NAME.search(name) or ("://" in inner and redact_uri(inner) != inner):
        return match["mark"] + _CUT
    return match[0]


def _joined_again(text: str) -> str:
    text = re.sub(
        f"([?#]){_CUT}(?:[&;]{_CUT})*[&;]", r"\1", text
    )  # the first parameters: the next one takes their mark
    return re.sub(f"[?&;#]{_CUT}", "", text)
