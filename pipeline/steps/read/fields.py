"""What a source says of a clip apart from its audio: transcript, language, speaker, labels, and the rest as valid
JSON."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pipeline.input_config import InputConfig
from pipeline.items import JSON, Description, Origin, Reject
from pipeline.redaction import redact
from pipeline.steps.columns import LABELS_COLUMNS, LANGUAGE_COLUMNS, SPEAKER_COLUMNS, find_column

MAX_DEPTH = 64  # levels of metadata; some JSON parsers stop at a hundred

T = TypeVar("T")

_LABEL_BORDER = re.compile(r",(?! )")  # "Male speech, man speaking" is one label
_SURROGATE = re.compile("[\ud800-\udfff]")


def describe(fields: Mapping[str, Any], config: InputConfig) -> Description:
    """Transcript, language, speaker and labels, from the configured fields or those of the usual names.

    A value of the wrong kind, such as an object in place of a language, stays in the metadata, as do all other fields.
    """
    rest = dict(fields)
    return Description(
        text=_take(rest, config.text_column, _text),
        language=_take(rest, find_column(rest, config.language_column, LANGUAGE_COLUMNS), _name),
        speaker_id=_take(rest, find_column(rest, config.speaker_column, SPEAKER_COLUMNS), _name),
        labels=_take(rest, find_column(rest, config.labels_column, LABELS_COLUMNS), _labels),
        metadata={clean(str(name)): to_json(value) for name, value in rest.items()},
    )


def _take(fields: dict[str, Any], column: str | None, read: Callable[[Any], T | None]) -> T | None:
    """The value of a column. The column is removed from the fields if the value could be read or is empty."""
    if column is None or column not in fields:
        return None
    value = fields[column]
    taken = read(value)
    if taken is not None or _is_nothing(value):
        del fields[column]
    return taken


def _is_nothing(value: Any) -> bool:
    """Whether the value is None, an empty cell, or NaN, which pandas writes for an empty cell."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str | None:
    if value == "":
        return ""  # a clip in which nothing is said
    return None if _is_nothing(value) or not isinstance(value, str | int | float) else clean(str(value))


def _name(value: Any) -> str | None:
    """A name or a number as a string. 7.0 becomes "7", because pandas makes 7.0 of it in a column with gaps."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if _is_nothing(value) or not isinstance(value, str | int | float) else clean(str(value))


def _labels(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, list | tuple):
        names = [_name(item) for item in value]
        labels = tuple(name for name in names if name is not None)
        return labels if len(labels) == len(names) else None
    if isinstance(value, str) and value:
        return tuple(clean(label) for label in _LABEL_BORDER.split(value) if label)
    name = _name(value)
    return None if name is None else (name,)


def to_json(value: Any, depth: int = 0) -> JSON:
    """The value in a form that every JSON parser accepts: NaN, dates and decimals become strings, bytes become
    base64."""
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
    """The text with lone surrogates replaced and the secrets of URIs cut out. UTF-8 cannot hold lone surrogates, and
    names in a tar and JSON escapes may have them."""
    return _SURROGATE.sub("\ufffd", redact(text))


def read_reject(origin: Origin, reason: str, message: str) -> Reject:
    return Reject(origin=origin, stage="read", reason=reason, message=clean(message))
