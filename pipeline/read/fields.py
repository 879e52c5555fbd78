"""What a source says of a clip beside its audio: the transcript, and the rest as clean JSON."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.items import JSON, Origin, Reject

MAX_DEPTH = 64  # of metadata; some JSON parsers stop at a hundred
AUDIO_COLUMNS = ("audio", "audio_filepath", "audio_path", "path", "file")

_SURROGATE = re.compile("[\ud800-\udfff]")


def find_audio_column(names: Iterable[str], wanted: str | None) -> str | None:
    """The column that holds the audio or its path: the configured one, else the first usual name that is there."""
    present = set(names)
    candidates = AUDIO_COLUMNS if wanted is None else (wanted,)
    return next((name for name in candidates if name in present), None)


def take_text(fields: Mapping[str, Any], column: str) -> tuple[str | None, dict[str, JSON]]:
    """The transcript, None if there is none, and all other fields as JSON.

    A list or an object is no transcript and stays among the fields; NaN is how pandas says that there is none.
    """
    text = fields.get(column)
    if isinstance(text, float) and math.isnan(text):
        text = None
    is_text = text is None or isinstance(text, str | int | float)
    rest = {clean(str(name)): to_json(value) for name, value in fields.items() if not (is_text and name == column)}
    return (clean(str(text)) if is_text and text is not None else None), rest


def to_json(value: Any, depth: int = 0) -> JSON:
    """A value that every JSON parser accepts: NaN, dates and decimals become strings, bytes become base64."""
    if depth > MAX_DEPTH:
        return f"left out: nested deeper than {MAX_DEPTH} levels"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {clean(str(key)): to_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, depth + 1) for item in value]
    return clean(str(value))


def clean(text: str) -> str:
    """The text without what UTF-8 cannot hold: names in a tar and JSON escapes may carry lone surrogates."""
    return _SURROGATE.sub("\ufffd", text)


def read_reject(origin: Origin, reason: str, message: str) -> Reject:
    return Reject(origin=origin, stage="read", reason=reason, message=clean(message))
