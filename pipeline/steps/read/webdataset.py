"""WebDataset tars: neighbouring members with the same key are one sample, such as a.flac, a.json and a.txt.

Nothing is unpacked to disk or evaluated: audio stays bytes, .json and .txt are parsed, and other members are only named
in the metadata.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import Description, Origin, RawClip, Reject, ShardSpec
from pipeline.steps.formats import AUDIO_ENDINGS
from pipeline.steps.read.fields import clean, describe, read_reject

MAX_TEXT_BYTES = 16 * 2**20
PADDING_BYTES = 2**20  # writers pad with zeros to records of 10 KiB, or of the size that was set

MAX_NAME_BYTES = 2**20

_NAME_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGE = (tarfile.TarError, EOFError, ValueError, LookupError, ArithmeticError, RecursionError)
"""What tarfile raises, on purpose or not, on headers that make no sense."""


@dataclass(slots=True)
class _Sample:
    key: str
    parts: dict[str, bytes | None] = field(default_factory=dict)
    """Bytes of each member by its ending; None for one that was not read."""
    faults: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and message for each audio member that cannot be used, by its ending."""
    size: int = 0
    """Bytes that are held in memory."""

    def takes(self, key: str, ending: str, size: int, max_bytes: int) -> bool:
        """Whether a member belongs to this sample. The limit keeps a sample that never ends out of memory."""
        known = ending in self.parts or ending in self.faults
        return key == self.key and not known and (self.size + size <= max_bytes or not _is_audio(ending))


@dataclass(frozen=True, slots=True)
class _Damage:
    """Where and why the tar cannot be read on."""

    message: str


def read_webdataset(spec: ShardSpec, config: InputConfig) -> Iterator[RawClip | Reject]:
    """Each sample of the tar, in the tar's order. If the tar is damaged, one reject stands for all samples from there
    on.

    A sample with several audio members gives as many clips.
    """
    index = 0
    source = clean(spec.uri)
    for found in _samples(spec.uri, config.max_clip_bytes):
        if isinstance(found, _Damage):
            yield read_reject(Origin(index=index, source=source, key=""), "damaged_source", found.message)
            return
        for item in _clips(found, source, index, config):
            yield item
            index += 1


def _samples(uri: str, max_clip_bytes: int) -> Iterator[_Sample | _Damage]:
    """The samples, and last the damage if there is some."""
    sample: _Sample | None = None
    head = b""
    with storage.open_read(uri) as stream:
        try:
            head = stream.read(8)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Header) as tar:
                while (member := _next(tar)) is not None:
                    if member.isdir():
                        continue
                    key, ending = _split_name(member.name)
                    if sample is None or not sample.takes(key, ending, member.size, max_clip_bytes):
                        if sample is not None:
                            yield sample
                        sample = _Sample(key)
                    _add(sample, ending, tar, member, max_clip_bytes)
                end = tar.offset
            trouble = _trouble_at_end(stream, end)
        except _DAMAGE as error:
            trouble = f"the tar cannot be read on: {error}{_hint(head) if sample is None else ''}"
        if sample is not None:
            yield sample
        if trouble is not None:
            yield _Damage(trouble)


class _Header(tarfile.TarInfo):
    """The header of a member, with its size checked: tarfile would read long names whole, whatever size they claim."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _NAME_TYPES and header.size > MAX_NAME_BYTES):
            raise tarfile.ReadError(f"a header that claims {header.size} bytes")
        return header


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    member = tar.next()
    cast(Any, tar).members.clear()  # tarfile remembers every member it has seen
    if member is not None and tar.offset <= member.offset:
        raise tarfile.ReadError("a member that ends before it begins")  # tarfile would loop for ever
    return member


def _add(sample: _Sample, ending: str, tar: tarfile.TarFile, member: tarfile.TarInfo, max_clip_bytes: int) -> None:
    audio = _is_audio(ending)
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
        data = cast(BinaryIO, tar.extractfile(member)).read()
    except _DAMAGE:  # damage of the tar, or of its compression
        if audio:
            sample.faults[ending] = ("damaged_source", f"the tar stops inside {member.name}")
        raise
    sample.parts[ending] = data
    sample.size += len(data)


def _trouble_at_end(stream: BinaryIO, end: int) -> str | None:
    """What is wrong at the end of the tar, None if nothing.

    tarfile does not say it: it takes a missing or damaged header for the end, and the first end for the last. A second
    tar joined to the first would begin within PADDING_BYTES.
    """
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return f"the tar stops at byte {end} without an end-of-archive block: it was cut, and samples may be missing"
    if any(block):
        return f"the tar has a damaged header at byte {end}, and what follows cannot be read"
    if any(stream.read(PADDING_BYTES)):
        return f"more data follows the end-of-archive block at byte {end}: tars cannot be joined with cat"
    return None


def _hint(head: bytes) -> str:
    """What to do about a tar that is compressed although its name does not say so."""
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed is None:
        return ""
    return f"; it is packed with {packed}: only gzip is unpacked, where the name ends in .tar.gz or .tgz"


def _is_audio(ending: str) -> bool:
    return f".{ending}".endswith(AUDIO_ENDINGS)


def _split_name(name: str) -> tuple[str, str]:
    """Key and ending as in WebDataset: the ending begins at the first dot in the last part of the path."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _clips(sample: _Sample, source: str, index: int, config: InputConfig) -> Iterator[RawClip | Reject]:
    audio = [ending for ending in (*sample.parts, *sample.faults) if _is_audio(ending)]
    if not audio:
        origin = Origin(index=index, source=source, key=clean(sample.key))
        found = ", ".join(ending or "a file whose name has no ending" for ending in sample.parts) or "only links"
        yield read_reject(origin, "no_audio", f"a sample without audio: it holds {found}")
        return
    description = _describe(sample, config)
    for position, ending in enumerate(audio):
        key = sample.key if len(audio) == 1 else f"{sample.key}.{ending}"
        origin = Origin(index=index + position, source=source, key=clean(key))
        if ending in sample.faults:
            yield read_reject(origin, *sample.faults[ending])
        else:
            data = sample.parts[ending] or b""
            name = f"{sample.key}.{ending}"
            yield RawClip(origin=origin, name=name, data=data, description=description)


def _describe(sample: _Sample, config: InputConfig) -> Description:
    """The fields of .json, the text of .txt as the transcript if there is one, and the names of other members."""
    fields: dict[str, Any] = {}
    document = sample.parts.get("json")
    if document is not None:
        try:
            parsed = json.loads(document.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            parsed = {"unreadable_json": str(error)}
        fields = parsed if isinstance(parsed, dict) else {"json": parsed}
    others = sorted(ending for ending, part in sample.parts.items() if part is None)
    description = describe(fields | ({"other_members": others} if others else {}), config)
    transcript = sample.parts.get("txt")
    if transcript is None:
        return description
    return replace(description, text=transcript.decode("utf-8-sig", "replace").strip())
