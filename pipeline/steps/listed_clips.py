"""The clips that a record of an input list stands for: a file, a part of a file, or several parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.input_config import InputConfig
from pipeline.items import Segment
from pipeline.steps.columns import AUDIO_COLUMNS, find_audio_column
from pipeline.steps.jsonl_csv import Record
from pipeline.steps.lhotse_records import is_lhotse, recording_id, source_of
from pipeline.steps.segments import SegmentError, entries_of, nested_segments, segment_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedClip:
    """A clip as an input list describes it."""

    path: str = ""
    """Path or URI of its file as the list has it; empty if the record names none."""
    segment: Segment | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of the record."""
    error: str | None = None
    """Why it cannot be read; None if it can."""


def listed_clips(record: Record, config: InputConfig, recordings: Mapping[str, Any]) -> list[ListedClip]:
    """The clips of a record in its order, at least one. `recordings` has the known recordings of Lhotse, by id."""
    if record.error:
        return [ListedClip(error=record.error)]
    fields = record.fields
    column = find_audio_column(fields, config.audio_column)
    if column is None or (isinstance(fields.get("recording"), Mapping) and config.audio_column is None):
        if is_lhotse(fields):
            return [_of_lhotse(fields, config, recordings)]
        expected = config.audio_column or f"one of {', '.join(AUDIO_COLUMNS[:-1])} or {AUDIO_COLUMNS[-1]}"
        found = ", ".join(fields) or "none"
        return [ListedClip(error=f"no path of an audio file: the fields are {found}, expected {expected}")]
    path = fields[column]
    if not isinstance(path, str) or not path or ("://" in path and "::" in path):
        # A chain such as reference://::https://… makes fsspec interpret what it fetches, which no list may ask for.
        value = repr(path[:200]) if isinstance(path, str) else f"of type {type(path).__name__}"
        return [ListedClip(error=f"{column} is {value}, not the path or URI of one file")]
    rest = {name: value for name, value in fields.items() if name != column}
    try:
        entries = nested_segments(rest, config)
    except SegmentError as error:
        return [ListedClip(path=path, error=str(error))]
    if entries is None:
        return [_part(path, rest, config)]
    return [
        ListedClip(path=path, error="an entry of segments is no object")
        if entry is None
        else _part(path, entry, config)
        for entry in entries_of(rest, entries, config)
    ]


def file_of(record: Record, clips: list[ListedClip]) -> str:
    """A key that is equal for neighbouring records of the same file; empty if the record names no file."""
    return clips[0].path or recording_id(record.fields) or ""


def _part(path: str, fields: Mapping[str, Any], config: InputConfig) -> ListedClip:
    try:
        segment, rest = segment_of(fields, config)
    except SegmentError as error:
        return ListedClip(path=path, error=str(error))
    return ListedClip(path=path, segment=segment, fields=rest)


def _of_lhotse(fields: Mapping[str, Any], config: InputConfig, recordings: Mapping[str, Any]) -> ListedClip:
    try:
        path, segment, rest = source_of(fields, config, recordings)
    except SegmentError as error:
        return ListedClip(error=str(error))
    return ListedClip(path=path, segment=segment, fields=rest)
