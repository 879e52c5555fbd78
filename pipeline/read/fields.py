"""What a source says of a clip beside its audio: the transcript, and the rest as clean JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.items import JSON, Origin, Reject

AUDIO_COLUMNS = ("audio", "audio_filepath", "audio_path", "path", "file")


def find_audio_column(names: Iterable[str], wanted: str | None) -> str | None:
    """The column that holds the audio or its path: the configured one, else the first usual name that is there."""
    present = set(names)
    candidates = AUDIO_COLUMNS if wanted is None else (wanted,)
    return next((name for name in candidates if name in present), None)


def take_text(fields: Mapping[str, Any], column: str) -> tuple[str | None, dict[str, JSON]]:
    """The transcript, None if there is none, and all other fields as JSON."""
    rest = {clean(str(name)): to_json(value) for name, value in fields.items() if name != column}
    text = fields.get(column)
    return (None if text is None else clean(text if isinstance(text, str) else str(text))), rest


def to_json(value: Any) -> JSON:
    """A value that every JSON parser accepts: NaN, dates and decimals become strings, bytes become base64."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {clean(str(key)): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return clean(str(value))


def clean(text: str) -> str:
    """The text without what UTF-8 cannot hold: names in a tar and JSON escapes may carry lone surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if _has_escape(text) else text


def _has_escape(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def read_reject(origin: Origin, reason: str, message: str) -> Reject:
    return Reject(origin=origin, stage="read", reason=reason, message=clean(message))
