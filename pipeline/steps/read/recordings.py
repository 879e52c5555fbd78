"""The recordings that supervisions of Lhotse name. They have a list of their own, beside that of the supervisions."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import ShardSpec
from pipeline.steps.jsonl_csv import read_records
from pipeline.steps.lhotse_records import recording_id


def find_recordings(spec: ShardSpec, config: InputConfig) -> Mapping[str, Any]:
    """The records of the recordings that the shard's supervisions name, by id; empty if it has no supervisions.

    The list is read up to the last of them, and only those are kept.
    """
    uri = _list_of_recordings(spec.uri, config)
    wanted = _named(spec, config) if uri else set()
    found: dict[str, Any] = {}
    if not uri or not wanted:
        return found
    with storage.open_read(uri) as stream:
        for record in read_records(uri, stream):
            name = record.fields.get("id")
            if isinstance(name, str) and name in wanted:
                found[name] = record.fields
                if len(found) == len(wanted):
                    break
    return found


def _list_of_recordings(uri: str, config: InputConfig) -> str | None:
    folder, name = posixpath.split(uri)
    if config.recordings is not None:
        given = config.recordings
        return given if "://" in given or given.startswith("/") else storage.join(folder, given)
    return storage.join(folder, name.replace("supervisions", "recordings")) if "supervisions" in name else None


def _named(spec: ShardSpec, config: InputConfig) -> set[str]:
    """Ids of the recordings that the records of the shard name; empty if they are not supervisions."""
    names: set[str] = set()
    with storage.open_read(spec.uri) as stream:
        for record in read_records(spec.uri, stream, spec.start, spec.stop, config.quoted):
            name = recording_id(record.fields)
            if name is None:
                return set()
            names.add(name)
    return names
