"""Plain audio files."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.steps.read.fields import clean, read_reject
from pipeline.storage import (
    AllowedPlaces,
    FileOnDisk,
    NotAFile,
    NotAllowed,
    NotAnObject,
    ObjectTooLarge,
    StoreUnavailable,
    Unreachable,
)


def read_files(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each file of the shard. Its key is the path relative to the folder that the files of the shard share."""
    uris = [f"{spec.uri}/{member}" for member in spec.members]
    for index, data in enumerate(storage.read_ahead(uris, config.max_clip_bytes, places_below(spec, config))):
        origin = Origin(index=index, source=clean(uris[index]), key=clean(spec.members[index]))
        if isinstance(data, bytes | FileOnDisk):
            yield RawClip(origin=origin, name=origin.key, data=data)
        else:
            yield unreadable(origin, data)


def places_below(spec: ShardSpec, config: InputConfig) -> AllowedPlaces | None:
    """The places that links of a local input may lead to; None if the input is not local and so has no links."""
    if not spec.root or not storage.is_local(spec.root):
        return None
    return AllowedPlaces(folders=(spec.root, *(config.allow or ())))


def unreadable(origin: Origin, error: Exception | None) -> Reject:
    """The reject for an object that is missing, too large, not reachable, not allowed or not a file."""
    if isinstance(error, ObjectTooLarge):
        return read_reject(origin, "too_many_bytes", f"{error}: see input.max_clip_bytes")
    if isinstance(error, NotAFile):
        return read_reject(origin, "not_a_file", str(error))
    if isinstance(error, NotAllowed):
        return read_reject(origin, "not_allowed", str(error))
    if isinstance(error, Unreachable | StoreUnavailable):
        return read_reject(origin, "unreachable", str(error))
    if isinstance(error, NotAnObject):
        return read_reject(origin, "missing", str(error))
    return read_reject(origin, "missing", "the file is not there")
