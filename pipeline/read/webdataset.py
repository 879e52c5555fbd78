"""WebDataset tars: neighbouring members with one key are one sample, such as a.flac, a.json and a.txt.

Nothing is ever unpacked to disk or evaluated: audio stays bytes, .json and .txt are parsed, other members are named in
the metadata and left alone.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pipeline import storage
from pipeline.config import InputConfig
from pipeline.formats import AUDIO_ENDINGS
from pipeline.items import JSON, Origin, RawClip, Reject, ShardSpec
from pipeline.read.fields import clean, read_reject, take_text, to_json

MAX_TEXT_BYTES = 16 * 2**20


@dataclass(slots=True)
class _Sample:
    key: str
    parts: dict[str, bytes | None] = field(default_factory=dict)
    """Bytes of each member by its ending; None for one that was not read."""
    faults: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and message for each audio member that cannot be used."""


def read_webdataset(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each sample of the tar, in the tar's order."""
    index = 0
    for sample in _samples(spec.uri, config.max_clip_bytes):
        if isinstance(sample, str):
            yield read_reject(Origin(index=index, source=spec.uri, key=""), "damaged_source", sample)
            index += 1
            continue
        for item in _clips(sample, spec.uri, index, config):
            yield item
            index += 1


def _samples(uri: str, max_clip_bytes: int) -> Iterator[_Sample | str]:
    """The samples, and a message in place of what follows the point where the tar is damaged."""
    sample: _Sample | None = None
    with storage.open_read(uri) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    cast(Any, tar).members.clear()  # tarfile remembers every member it has seen
                    if member.isdir():
                        continue
                    key, ending = _split_name(member.name)
                    if sample is None or key != sample.key or ending in sample.parts or ending in sample.faults:
                        if sample is not None:
                            yield sample
                        sample = _Sample(key)
                    _add(sample, ending, tar, member, max_clip_bytes)
                end = tar.offset
        except (tarfile.TarError, EOFError, ValueError) as error:
            if sample is not None:
                yield sample
            yield f"the tar cannot be read on: {error}"
            return
        if sample is not None:
            yield sample
        if not _ends_properly(stream, end):
            yield f"the tar stops at byte {end} without an end-of-archive block: it was cut, and samples may be missing"


def _add(sample: _Sample, ending: str, tar: tarfile.TarFile, member: tarfile.TarInfo, max_clip_bytes: int) -> None:
    audio = f".{ending}".endswith(AUDIO_ENDINGS)
    limit = max_clip_bytes if audio else MAX_TEXT_BYTES
    if not member.isreg():
        if audio:
            sample.faults[ending] = ("not_a_file", f"{member.name} is a link or a device, which is never followed")
        return
    if audio and member.size > limit:
        sample.faults[ending] = (
            "too_many_bytes",
            f"{member.size} bytes, and {limit} are allowed: input.max_clip_bytes",
        )
        return
    if not (audio or ending in ("json", "txt")) or member.size > limit:
        sample.parts[ending] = None
        return
    try:
        body = tar.extractfile(member)
        sample.parts[ending] = body.read() if body else None
    except tarfile.ReadError:
        if audio:
            sample.faults[ending] = ("damaged_source", f"the tar stops inside {member.name}")
        raise


def _ends_properly(stream: BinaryIO, end: int) -> bool:
    # tarfile takes a damaged or missing header after the first for the end and says nothing.
    stream.seek(end)
    return stream.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE


def _split_name(name: str) -> tuple[str, str]:
    """Key and ending as WebDataset has them: the ending begins at the first dot of the last part of the path."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _clips(sample: _Sample, uri: str, index: int, config: InputConfig) -> Iterator[RawClip | Reject]:
    audio = [ending for ending in (*sample.parts, *sample.faults) if f".{ending}".endswith(AUDIO_ENDINGS)]
    if not audio:
        if any(ending in ("json", "txt") for ending in sample.parts):
            origin = Origin(index=index, source=uri, key=clean(sample.key))
            yield read_reject(origin, "no_audio", f"the sample has {', '.join(sample.parts)} and no audio")
        return
    text, metadata = _describe(sample, config.text_column)
    for position, ending in enumerate(audio):
        key = sample.key if len(audio) == 1 else f"{sample.key}.{ending}"
        origin = Origin(index=index + position, source=uri, key=clean(key))
        if ending in sample.faults:
            yield read_reject(origin, *sample.faults[ending])
        else:
            data = sample.parts[ending] or b""
            name = f"{sample.key}.{ending}"
            yield RawClip(origin=origin, name=name, data=data, text=text, metadata=metadata)


def _describe(sample: _Sample, text_column: str) -> tuple[str | None, dict[str, JSON]]:
    """Transcript from .txt or the field of .json; as metadata the rest of .json and the names of other members."""
    text: str | None = None
    metadata: dict[str, JSON] = {}
    document = sample.parts.get("json")
    if document is not None:
        try:
            parsed = json.loads(document.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            parsed = {"unreadable_json": str(error)}
        text, metadata = take_text(parsed if isinstance(parsed, dict) else {"json": parsed}, text_column)
    transcript = sample.parts.get("txt")
    if transcript is not None:
        text = transcript.decode("utf-8-sig", "replace").strip()
    others = sorted(ending for ending, part in sample.parts.items() if part is None)
    return text, metadata | ({"other_members": to_json(others)} if others else {})
