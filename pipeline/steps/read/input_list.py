"""Input lists in JSONL, CSV and TSV: one record per clip, with the path of its audio and other fields.

Neighbouring records of one file are read together: the file is fetched once, and its parts come in the order of their
starts, so that it is decoded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import tee
from typing import Any

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.redaction import redact_uri
from pipeline.steps.jsonl_csv import Record, read_records
from pipeline.steps.listed_clips import ListedClip, listed_clips
from pipeline.steps.read.fields import clean, describe, read_reject
from pipeline.steps.read.files import unreadable
from pipeline.steps.read.recordings import find_recordings
from pipeline.storage import (
    AllowedPlaces,
    Fetched,
    FileOnDisk,
    LargeObject,
    ObjectTooLarge,
    StoreUnavailable,
    Unreachable,
)

FEW_FILES = 10
"""So many files of a shard, or a tenth of them if that is more, may be unreachable before it counts as an outage."""
HELD_BYTES = 64 * 2**20
"""Limit for the records of one file that are held together. For those after it the file is fetched and decoded
again."""


@dataclass(slots=True)
class _File:
    """Neighbouring clips of one file."""

    path: str
    clips: list[tuple[Record, ListedClip]] = field(default_factory=list)
    held: int = 0

    def takes(self, path: str) -> bool:
        return path == self.path != "" and self.held < HELD_BYTES


def read_input_list(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each record of the shard's range. A path is absolute, a URI, or relative to the list's folder or audio_folder."""
    recordings = find_recordings(spec, config)
    with storage.open_read(spec.uri) as stream:
        records = read_records(spec.uri, stream, spec.start, spec.stop, config.quoted, spec.first_line)
        files, ahead = tee(_files(records, config, recordings))
        folder = storage.join(spec.uri.rpartition("/")[0], config.audio_folder)
        wanted = (_wanted(file, folder, config) for file in ahead)
        audio = storage.read_ahead(wanted, config.max_clip_bytes, _places(spec, folder, config))
        outage = _Outage(spec.clips)
        index = 0
        for file, data in zip(files, audio, strict=True):
            outage.notice(data)
            first_of_file = True
            for record, clip in file.clips:
                origin = Origin(
                    index=index,
                    source=clean(redact_uri(_uri(file.path, folder) if file.path else spec.uri)),
                    key=clean(_key(record, clip)),
                    segment=clip.segment,
                )
                index += 1
                if clip.error is not None:
                    yield read_reject(origin, "bad_record", f"line {record.line}: {clip.error}")
                elif not isinstance(data, bytes | FileOnDisk):
                    yield unreadable(origin, data)
                elif clip.segment is None and len(data) > config.max_clip_bytes:
                    yield unreadable(origin, ObjectTooLarge(f"{len(data)} bytes, and all of it is one clip"))
                else:
                    description = describe(clip.fields, config)
                    yield RawClip(
                        origin=origin,
                        name=clean(redact_uri(clip.path)),
                        data=data,
                        description=description,
                        shares_data=not first_of_file,
                    )
                    first_of_file = False
        outage.end()


class _Outage:
    """Decides whether unreachable stores are a fault of some records, or an outage, after which the shard is tried
    again."""

    def __init__(self, clips: int | None) -> None:
        self._most = max(FEW_FILES, (clips or 0) // 10)
        self._out_of_reach = 0
        self._reached = 0
        self._error: Exception | None = None

    def notice(self, data: Fetched) -> None:
        """Count the result of reading a file. Raises its error if too many files are unreachable."""
        if isinstance(data, Unreachable | StoreUnavailable):
            self._out_of_reach += 1
            self._error = data
            if self._out_of_reach > self._most:
                raise data
        elif data is not None:
            self._reached += 1

    def end(self) -> None:
        """Raise the latest error if no file could be reached at all."""
        if self._error is not None and not self._reached:
            raise self._error


def _places(spec: ShardSpec, folder: str, config: InputConfig) -> AllowedPlaces:
    """The places that the records may point to."""
    beside = (spec.uri.rpartition("/")[0], folder)
    if config.allow is not None:
        return AllowedPlaces(folders=(*beside, *config.allow))
    kinds = {storage.kind_of(uri) for uris in config.splits.values() for uri in uris}
    return AllowedPlaces(folders=beside, kinds=tuple(sorted(kinds)))


def _wanted(file: _File, folder: str, config: InputConfig) -> str | LargeObject | None:
    """What to read for the clips of a file. One that is read in parts may be far larger than a clip."""
    sound = [clip for _, clip in file.clips if clip.error is None]
    if not sound:
        return None
    uri = _uri(file.path, folder)
    return LargeObject(uri, config.max_file_bytes) if any(clip.segment for clip in sound) else uri


def _files(records: Iterator[Record], config: InputConfig, recordings: Mapping[str, Any]) -> Iterator[_File]:
    """The clips of the records. Neighbouring clips of one file are together, ordered by their starts."""
    file: _File | None = None
    for record in records:
        clips = listed_clips(record, config, recordings)
        if file is None or not file.takes(clips[0].path):
            if file is not None:
                yield _in_order(file)
            file = _File(clips[0].path)
        file.clips += [(record, clip) for clip in clips]
        file.held += record.stop - record.start
    if file is not None:
        yield _in_order(file)


def _in_order(file: _File) -> _File:
    file.clips.sort(key=lambda listed: 0 if listed[1].segment is None else listed[1].segment.start)
    return file


def _uri(path: str, folder: str) -> str:
    return path if "://" in path or path.startswith("/") else storage.join(folder, path)


def _key(record: Record, clip: ListedClip) -> str:
    if not clip.path:
        return f"byte {record.start}"
    path = redact_uri(clip.path)
    return path if clip.segment is None else f"{path}#{clip.segment.fragment}"
