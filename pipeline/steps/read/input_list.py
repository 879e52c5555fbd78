"""Input lists in JSONL, CSV and TSV: one record per clip, with the path of its audio and what else is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import tee

from pipeline import storage
from pipeline.config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.steps.jsonl_csv import Record, read_records
from pipeline.steps.read.fields import clean, describe, find_audio_column, read_reject
from pipeline.steps.read.files import unreadable


def read_input_list(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each record of the shard's range. A path is absolute, a URI, or below the list's folder or audio_folder."""
    with storage.open_read(spec.uri) as stream:
        records, ahead = tee(read_records(spec.uri, stream, spec.start, spec.stop, config.quoted))
        folder = storage.join(spec.uri.rpartition("/")[0], config.audio_folder)
        uris, wanted = tee(_audio_uri(record, folder, config) for record in ahead)
        audio = storage.read_ahead(wanted, config.max_clip_bytes)
        for index, (record, uri, data) in enumerate(zip(records, uris, audio, strict=True)):
            if uri is None:
                origin = Origin(index=index, source=clean(spec.uri), key=f"byte {record.start}")
                yield read_reject(origin, "bad_record", record.error or _no_audio(record, config))
                continue
            column = find_audio_column(record.fields, config.audio_column) or ""
            origin = Origin(index=index, source=clean(uri), key=clean(record.fields[column]))
            if not isinstance(data, bytes):
                yield unreadable(origin, data)
                continue
            fields = {name: value for name, value in record.fields.items() if name != column}
            yield RawClip(origin=origin, name=origin.key, data=data, description=describe(fields, config))


def _audio_uri(record: Record, folder: str, config: InputConfig) -> str | None:
    column = find_audio_column(record.fields, config.audio_column)
    path = record.fields.get(column) if column else None
    if record.error or not isinstance(path, str) or not path:
        return None
    if "://" not in path:
        return path if path.startswith("/") else storage.join(folder, path)
    # A chain such as reference://::https://… makes fsspec interpret what it fetches: not at a list's bidding.
    return None if "::" in path else path


def _no_audio(record: Record, config: InputConfig) -> str:
    if column := find_audio_column(record.fields, config.audio_column):
        value = record.fields[column]
        found = repr(value[:200]) if isinstance(value, str) else f"of type {type(value).__name__}"
        return f"{column} is {found}, not the path or URI of one file"
    expected = config.audio_column or "one of audio, audio_filepath, audio_path, path, file"
    return f"no path of an audio file: the fields are {', '.join(record.fields) or 'none'}, expected {expected}"
