"""Plain audio files."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline import storage
from pipeline.config import InputConfig
from pipeline.items import Origin, RawClip, Reject, ShardSpec
from pipeline.steps.read.fields import clean, read_reject
from pipeline.storage import NotAnObject, ObjectTooLarge


def read_files(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each file of the shard. Its key is the path relative to the folder that the files of the shard share."""
    uris = [f"{spec.uri}/{member}" for member in spec.members]
    for index, data in enumerate(storage.read_ahead(uris, config.max_clip_bytes)):
        origin = Origin(index=index, source=clean(uris[index]), key=clean(spec.members[index]))
        if isinstance(data, bytes):
            yield RawClip(origin=origin, name=origin.key, data=data)
        else:
            yield unreadable(origin, data)


def unreadable(origin: Origin, error: FileNotFoundError | NotAnObject | ObjectTooLarge | None) -> Reject:
    """The reject for an object that is missing, too large or not a file."""
    if isinstance(error, ObjectTooLarge):
        return read_reject(origin, "too_many_bytes", f"{error}: see input.max_clip_bytes")
    if isinstance(error, NotAnObject):
        return read_reject(origin, "missing", str(error))
    return read_reject(origin, "missing", "the file is not there")
