"""Fields of a record which say that a clip is a part of its file, and the times in other fields.

They are a start and an end, or a start and a duration (NeMo: `offset` and `duration`), or a list `segments` whose
entries have these. All are in seconds from the beginning of the file. A start alone is a part up to the end of the
file. A duration alone makes no part: it is the length of the file as somebody has measured it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.input_config import InputConfig
from pipeline.items import Segment
from pipeline.steps.columns import START_COLUMNS, STOP_COLUMNS, find_column

MAX_SECONDS = 1e9
DISAGREEMENT = 0.011
"""Tolerance in seconds between an end and a duration if both are given: lists round to hundredths."""

_TIMED = frozenset(
    (
        *("words", "word_timestamps", "word_segments", "chars", "characters", "phones", "phonemes"),
        *("alignment", "alignments", "tokens"),
    )
)
"""Fields whose times count from the beginning of the file."""
_TIMES = frozenset((*START_COLUMNS, *STOP_COLUMNS))


class SegmentError(ValueError):
    """A record does not say which part of its file it is. The message names the field."""


def segment_of(fields: Mapping[str, Any], config: InputConfig) -> tuple[Segment | None, dict[str, Any]]:
    """The part of the file that a record stands for, or None for all of it, and the remaining fields.

    Times in fields such as `words` are changed to count from the beginning of the part. Raises SegmentError.
    """
    rest = dict(fields)
    if not config.segments:
        return None, rest
    start_column = find_column(fields, config.start_column, START_COLUMNS)
    start = None if start_column is None else _seconds(fields, start_column)
    if start_column is None or start is None:
        return None, rest
    duration_column = config.duration_column or "duration"
    stop_column = find_column(fields, config.end_column, STOP_COLUMNS)
    duration = _seconds(fields, duration_column) if duration_column in fields else None
    stop = None if stop_column is None else _seconds(fields, stop_column)
    for column in (start_column, duration_column, *([stop_column] if stop_column else [])):
        rest.pop(column, None)
    segment = make_segment(start, stop, duration)
    return segment, {name: _relative(name, value, start) for name, value in rest.items()}


def make_segment(start: float, stop: float | None, duration: float | None, **options: Any) -> Segment:
    """The segment with these times in seconds. Raises SegmentError if there can be none."""
    for name, value in (("the start", start), ("the end", stop), ("the duration", duration)):
        if value is not None and not (0 <= value <= MAX_SECONDS):
            raise SegmentError(f"{name} of the segment is {value:g} s")
    if stop is not None and duration is not None:
        if abs(start + duration - stop) > DISAGREEMENT:
            raise SegmentError(
                f"a start of {start:g} s, a duration of {duration:g} s and an end of {stop:g} s disagree"
            )
        duration = None
    if duration == 0 or (stop is not None and stop <= start):
        raise SegmentError(f"the segment from {start:g} s has no length")
    return Segment(start=start, stop=stop, duration=duration, **options)


def nested_segments(fields: Mapping[str, Any], config: InputConfig) -> list[Any] | None:
    """The list `segments` of a record, if it holds parts of the file; None if not.

    Raises SegmentError if the list is empty, or if the record is a part itself, because then it is not clear what the
    times count from.
    """
    entries = fields.get("segments")
    if not config.segments or not isinstance(entries, list):
        return None
    if not entries:
        raise SegmentError("the list of segments is empty: leave it out for the whole file")
    first = entries[0]
    if not isinstance(first, Mapping) or find_column(first, config.start_column, START_COLUMNS) is None:
        return None
    own = find_column(fields, config.start_column, START_COLUMNS)
    if own is not None and _seconds(fields, own):
        raise SegmentError(f"both {own} and a list of segments: one of them has to go")
    return entries


def entries_of(fields: Mapping[str, Any], entries: list[Any], config: InputConfig) -> Iterator[dict[str, Any] | None]:
    """The fields of each entry, together with those of the record that hold for each entry; None for an entry that is
    no object.

    The transcript, length and words of the record are those of the whole file, so no part gets them.
    """
    ours = {config.text_column, config.start_column, config.end_column, config.duration_column, "duration", "segments"}
    whole = ours | _TIMED | _TIMES
    shared = {name: value for name, value in fields.items() if name not in whole}
    for entry in entries:
        yield shared | dict(entry) if isinstance(entry, Mapping) else None


def without_times(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says that holds for each part of its sound: all but times, lengths and words."""
    whole = _TIMED | _TIMES | {"duration", "segments"}
    return {name: value for name, value in fields.items() if name not in whole}


def _seconds(fields: Mapping[str, Any], column: str) -> float | None:
    """The number in a cell; None for an empty cell. Raises SegmentError if it is not a number."""
    value = fields[column]
    if value is None or value == "":
        return None
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        seconds = None
    if seconds is None or math.isinf(seconds):
        shown = repr(value)[:80]
        raise SegmentError(f"{column} is {shown}, and seconds are expected: input.segments: false reads the whole file")
    return None if math.isnan(seconds) else seconds


def _relative(name: str, value: Any, start: float) -> Any:
    return shift_times(value, start) if name in _TIMED else value


def shift_times(value: Any, start: float) -> Any:
    """A list of words or the like, with the times of its entries counted from `start`."""
    if isinstance(value, Mapping):
        return {name: _shifted(name, entry, start) for name, entry in value.items()}
    if isinstance(value, list):
        return [shift_times(entry, start) for entry in value]
    return value


def _shifted(name: str, value: Any, start: float) -> Any:
    if name in _TIMES:
        return round(value - start, 9) if _is_number(value) else value
    if name in ("timestamp", "timestamps") and isinstance(value, list):
        return [round(time - start, 9) if _is_number(time) else time for time in value]
    return shift_times(value, start) if isinstance(value, Mapping | list) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
