"""The record of an export: its dataset and settings. An export is continued only with the same settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import storage
from pipeline.dataset.provenance import list_differences
from pipeline.yaml_config import ConfigError

EXPORT_VERSION = 1


class ExportMismatch(ConfigError):
    """The folder holds another export or other files; the message names the differences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """Contents of `_moss_tok/export.json`. The locations of the dataset and the export are not part of it."""

    export_version: int
    fingerprint: str
    """Fingerprint of the dataset."""
    shards: int
    shards_sha256: str
    """SHA-256 of the ids of the exported shards. They decide references and estimated buckets."""
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    """SHA-256 of files that the settings name."""
    versions: Mapping[str, str]
    """Libraries that decide what is written."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        here, there = _flatten(json.loads(self.to_json())), _flatten(other)
        return list_differences(there, here, "the export has {!r}, these settings {!r}")


def hash_of_ids(shard_ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(shard_ids)).encode()).hexdigest()


def open_export(root: str, record: ExportRecord) -> None:
    """Begin the export at `root`, or check that the one there has the same settings. Raises ExportMismatch."""
    uri = storage.join(root, "_moss_tok", "export.json")
    if storage.stat(uri) is None:
        if others := storage.list_names(root):
            raise ExportMismatch(f"{root} holds other files, such as {min(others)}: choose an empty or a new folder")
        if storage.create(uri, record.to_json()):
            return
    try:
        existing = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise ExportMismatch(f"{uri}: not the record of an export: {error}") from error
    if differences := record.differences(existing):
        raise ExportMismatch(
            f"{root} was made with other settings or of another dataset:\n  "
            + "\n  ".join(differences)
            + "\nChoose another folder for these settings, or use the old settings to continue this one."
        )


def _flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
