"""Writes one part of an export: the files of one shard, and the export manifest that commits them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypedDict, runtime_checkable

from pipeline import storage
from pipeline.export.rows import ExportRow
from pipeline.export.selection import Removed, Selected

OPEN_FILES = 4  # entries for so many full files may wait in memory


class Format(Protocol):
    """A format of exports. It makes an entry of each row; entries wait until there are enough for a file."""

    @property
    def need_text(self) -> bool:
        """Whether rows without text are left out."""

    @property
    def need_codes(self) -> bool:
        """Whether codes must be read."""

    def entry(self, selected: Selected) -> tuple[str, Any, int] | Removed:
        """The folder of the row's file, its entry, and the size of the entry in bytes; or why the row is left out."""

    def files(self, stem: str, entries: list[Any]) -> Mapping[str, bytes]:
        """Contents of the files for these entries, by name. Every name contains `stem`."""


class ExportFile(TypedDict):
    """What a manifest says of a file."""

    size: int
    """Bytes."""
    sha256: str
    rows: int


@runtime_checkable
class GroupedFormat(Protocol):
    """A format that makes one entry of several rows."""

    def group(self, row: ExportRow) -> str | None:
        """What rows of an entry have in common; None if the row is alone. They follow each other in their shard."""

    def group_entry(self, group: Sequence[Selected]) -> tuple[str, Any, int] | Removed:
        """Like `Format.entry`, of several rows of a split."""


@runtime_checkable
class IndexedFormat(Protocol):
    """A format with files that tell of all others: they are written once every part is committed."""

    def index(self, files: Mapping[str, ExportFile]) -> Mapping[str, bytes]:
        """Contents of these files by their paths in the export. `files` are those of all parts, by their paths."""


def by_folder(files: Mapping[str, ExportFile]) -> dict[str, dict[str, ExportFile]]:
    """The files of each folder, by their names there, in the same order."""
    folders: dict[str, dict[str, ExportFile]] = {}
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = file
    return folders


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportManifest:
    """Contents of `_moss_tok/parts/<shard_id>.json`."""

    shard_id: str
    rows: int
    """Rows of the shard: written and removed."""
    written: Mapping[str, int]
    """Rows by split."""
    removed: Mapping[str, int]
    """Rows left out, by reason."""
    seconds: Mapping[str, float]
    """Seconds of audio written, by split."""
    references: int
    """Rows written with a reference."""
    files: Mapping[str, ExportFile]
    """The files, by their paths in the export."""


def write_part(
    root: str, shard_id: str, items: Iterable[Selected | Removed], form: Format, file_bytes: int
) -> ExportManifest:
    """Write all files of a part, then its manifest. The same items give the same files, byte for byte.

    Files of an earlier attempt are replaced.
    """
    written: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    files: dict[str, ExportFile] = {}
    waiting = _Waiting(file_bytes)
    rows = references = 0

    def publish(folder: str, number: int, entries: list[Any]) -> None:
        for name, data in form.files(f"{shard_id}-{number:04d}", entries).items():
            storage.publish(storage.join(root, folder, name), data)
            sha256 = hashlib.sha256(data).hexdigest()
            files[f"{folder}/{name}"] = {"size": len(data), "sha256": sha256, "rows": len(entries)}

    for group in _groups(items, form):
        if isinstance(group, Removed):
            rows += 1
            removed[group.reason] += 1
            continue
        rows += len(group)
        outcome = form.group_entry(group) if isinstance(form, GroupedFormat) else form.entry(group[0])
        if isinstance(outcome, Removed):
            removed[outcome.reason] += len(group)
            continue
        split = group[0].row.split
        written[split] += len(group)
        seconds[split] = sum((selected.row.duration for selected in group), seconds.get(split, 0.0))
        references += sum(selected.reference is not None for selected in group)
        for full in waiting.add(*outcome):
            publish(*full)
    for rest in waiting.drain():
        publish(*rest)
    manifest = ExportManifest(
        shard_id=shard_id,
        rows=rows,
        written=dict(written),
        removed=dict(removed),
        seconds=seconds,
        references=references,
        files=files,
    )
    document = json.dumps(asdict(manifest), indent=1, sort_keys=True)
    storage.publish(export_manifest_uri(root, shard_id), document.encode())
    return manifest


def _groups(items: Iterable[Selected | Removed], form: Format) -> Iterator[list[Selected] | Removed]:
    """The rows of each entry, in order. A row that is left out ends a group."""
    group: list[Selected] = []
    key: tuple[str, str] | None = None
    for item in items:
        name = form.group(item.row) if isinstance(item, Selected) and isinstance(form, GroupedFormat) else None
        next_key = (item.row.split, name) if isinstance(item, Selected) and name is not None else None
        if group and (next_key is None or next_key != key):
            yield group
            group = []
        key = next_key
        if isinstance(item, Selected):
            group.append(item)
        else:
            yield item
    if group:
        yield group


def export_manifests(root: str) -> str:
    return storage.join(root, "_moss_tok", "parts")


def export_manifest_uri(root: str, shard_id: str) -> str:
    return storage.join(export_manifests(root), f"{shard_id}.json")


def read_export_manifest(root: str, shard_id: str) -> ExportManifest:
    """The manifest of a committed part. Raises ValueError if it is damaged."""
    uri = export_manifest_uri(root, shard_id)
    try:
        return ExportManifest(**json.loads(storage.read_bytes(uri)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{uri}: not an export manifest: {error}: delete it, and the part is done again") from error


class _Waiting:
    """Entries that wait, by folder, until there are enough for a file or all folders together hold too much."""

    def __init__(self, file_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._entries: dict[str, list[Any]] = {}
        self._sizes: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()

    def add(self, folder: str, entry: Any, size: int) -> Iterator[tuple[str, int, list[Any]]]:
        """Add an entry. Yields folder, number and entries of a file that is full now."""
        self._entries.setdefault(folder, []).append(entry)
        self._sizes[folder] += size
        if self._sizes[folder] >= self._file_bytes:
            yield self._close(folder)
        elif self._sizes.total() >= OPEN_FILES * self._file_bytes:
            yield self._close(max(self._sizes, key=lambda name: (self._sizes[name], name)))

    def drain(self) -> Iterator[tuple[str, int, list[Any]]]:
        """Yields the remaining entries as files."""
        for folder in sorted(self._entries):
            yield self._close(folder)

    def _close(self, folder: str) -> tuple[str, int, list[Any]]:
        number = self._numbers[folder]
        self._numbers[folder] += 1
        del self._sizes[folder]
        return folder, number, self._entries.pop(folder)
