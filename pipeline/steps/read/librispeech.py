"""Folders in the layout of LibriSpeech: <speaker>/<chapter>/<speaker>-<chapter>-<number>.flac, with transcripts beside.

The transcripts of a chapter are in <speaker>-<chapter>.trans.txt. It has a line for each file: its name without the
ending, a space, the text. If there is no such file or line, the clip has no transcript. If the transcripts are a folder
or far too large, the metadata of the clips say so.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import JSON, Description, RawClip, Reject, ShardSpec
from pipeline.steps.read.fields import clean
from pipeline.steps.read.files import places_below, read_files
from pipeline.storage import AllowedPlaces, NotAnObject, ObjectTooLarge

MAX_TRANSCRIPT_BYTES = 16 * 2**20


def read_librispeech(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each audio file of the shard, with its transcript and its speaker; the chapter is in the metadata."""
    places = places_below(spec, config)
    chapter, texts, metadata = "", dict[str, str](), dict[str, JSON]()
    for member, item in zip(spec.members, read_files(spec, config), strict=True):
        if isinstance(item, Reject):
            yield item
            continue
        folder, name = posixpath.split(f"{spec.uri}/{member}")
        stem = name.partition(".")[0]
        if (
            this := f"{folder}/{stem.rpartition('-')[0]}"
        ) != chapter:  # neighbouring files mostly belong to one chapter
            chapter = this
            texts, metadata = _transcripts(f"{this}.trans.txt", places)
        description = _describe(stem, texts, metadata)
        yield RawClip(origin=item.origin, name=item.name, data=item.data, description=description)


def _describe(stem: str, texts: dict[str, str], metadata: dict[str, JSON]) -> Description:
    parts = stem.split("-")
    if len(parts) != 3:
        return Description(text=texts.get(stem), metadata=metadata)
    metadata = metadata | {"chapter_id": clean(parts[1])}
    return Description(text=texts.get(stem), speaker_id=clean(parts[0]), metadata=metadata)


def _transcripts(uri: str, places: AllowedPlaces | None) -> tuple[dict[str, str], dict[str, JSON]]:
    """The texts of a chapter by name of the clip, and metadata for its clips.

    Both are empty if there is no such file; the metadata say why it cannot be read.
    """
    try:
        data = storage.read_bytes(uri, MAX_TRANSCRIPT_BYTES, places)
    except FileNotFoundError:
        return {}, {}
    except (NotAnObject, ObjectTooLarge) as error:
        return {}, {"unreadable_transcripts": clean(str(error))}
    lines = data.decode("utf-8-sig", "replace").splitlines()
    return {name: text.strip() for name, _, text in (line.partition(" ") for line in lines) if name}, {}
