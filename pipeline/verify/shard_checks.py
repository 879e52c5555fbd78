"""Checks one shard: its manifest against plan and record, its objects against the manifest, and their rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moss_tok.audio import REASONS
from pipeline import schema, storage
from pipeline.dataset.dataset import Output
from pipeline.dataset.manifest import ShardManifest, read_manifest
from pipeline.items import ShardSpec
from pipeline.parquet import open_table
from pipeline.steps.reject_reasons import PREPARE_REASONS, READ_REASONS
from pipeline.verify.fetch import FetchedObject, fetch
from pipeline.verify.findings import Difference, Findings
from pipeline.verify.row_checks import RowChecks, clip_indices

BATCH_BYTES = 2 * 2**20  # of values that are checked at once
REJECT_STAGES = ("read", "prepare", "encode")
KNOWN_REASONS = READ_REASONS.keys() | PREPARE_REASONS.keys() | REASONS.keys()


@dataclass(frozen=True, slots=True)
class CheckedShard:
    """The findings about a shard, and its manifest if that could be read."""

    spec: ShardSpec
    findings: Findings
    manifest: ShardManifest | None = None


def check_shard(output: Output, spec: ShardSpec) -> CheckedShard:
    """Check everything of one committed shard. Raises StorageError only if the store itself fails."""
    check = _ShardCheck(output, spec)
    manifest = check.manifest()
    if manifest is None:
        return CheckedShard(spec, check.findings)
    rows = check.data(manifest)
    rejects = check.rejects(manifest)
    if rows is not None and rejects is not None:
        check.nothing_lost(manifest, np.concatenate([rows, rejects]))
    return CheckedShard(spec, check.findings, manifest)


class _ShardCheck:
    def __init__(self, output: Output, spec: ShardSpec) -> None:
        self.findings = Findings()
        self._layout = output.layout
        self._record = output.record
        self._spec = spec

    def manifest(self) -> ShardManifest | None:
        uri = self._layout.manifest(self._spec.shard_id)
        self.findings.look("manifests")
        try:
            manifest = read_manifest(self._layout, self._spec.shard_id)
        except (FileNotFoundError, ValueError, RecursionError) as error:
            self._differ("manifests", uri, str(error).removeprefix(f"{uri}: "))
            return None
        expected = {
            "shard_id": self._spec.shard_id,
            "split": self._spec.split,
            "uri": self._spec.uri,
            "version": self._spec.version,
            "input_size": self._spec.size,
            "fingerprint": self._record.fingerprint,
        }
        wrong = [
            f"{name} is {getattr(manifest, name)!r} and should be {value!r}"
            for name, value in expected.items()
            if getattr(manifest, name) != value
        ]
        if wrong:
            self._differ("manifests", uri, "; ".join(wrong))
        return manifest

    def data(self, manifest: ShardManifest) -> np.ndarray | None:
        """Check the data object. Returns the positions of its rows in the shard, int64; None if it cannot be read."""
        uri = self._layout.data(self._spec)
        record = self._record
        wanted = schema.codes_schema(record.code_columns, record.codes_schema)
        checks = RowChecks(self._spec.shard_id, uri, record, self.findings, self._remedy())
        with self._object(uri, manifest.output_bytes, manifest.sha256) as file:
            if file is None or not self._read_rows(uri, file, wanted, checks):
                return None
        found = {
            "rows": checks.rows,
            "frames": checks.frames,
            "audio_seconds": checks.samples / record.model.sample_rate,
        }
        self._compare_counts(manifest, found)
        return checks.indices()

    def rejects(self, manifest: ShardManifest) -> np.ndarray | None:
        """Check the rejects. Returns their positions in the shard, int64; None if they cannot be read."""
        if not manifest.rejects:
            self._compare_counts(manifest, {"rejects_bytes": 0, "rejects_sha256": "", "rejects_by_reason": {}})
            return np.empty(0, np.int64)
        uri = self._layout.rejects(self._spec)
        checks = _RejectChecks(self._spec.shard_id, uri, self.findings, self._remedy())
        with self._object(uri, manifest.rejects_bytes, manifest.rejects_sha256) as file:
            if file is None or not self._read_rows(uri, file, schema.rejects_schema(), checks):
                return None
        found = {"rejects": checks.reasons.total(), "rejects_by_reason": dict(sorted(checks.reasons.items()))}
        self._compare_counts(manifest, found)
        return checks.indices()

    def nothing_lost(self, manifest: ShardManifest, indices: np.ndarray) -> None:
        self.findings.look("nothing lost")
        uri = self._layout.data(self._spec)
        expected = np.arange(len(indices))
        if not np.array_equal(np.sort(indices), expected):
            lost = np.setdiff1d(expected, indices)[:5].tolist()
            message = f"{len(indices)} rows and rejects, but positions {lost} are in neither" if lost else "ids repeat"
            self._differ("nothing lost", uri, message)
        elif self._spec.clips and len(indices) != self._spec.clips and not self._record.split_at_pauses:
            self._differ(
                "nothing lost", uri, f"{len(indices)} rows and rejects for {self._spec.clips} clips of the plan"
            )

    @contextmanager
    def _object(self, uri: str, size: int, sha256: str) -> Iterator[Any]:
        """Compare the bytes of an object with the manifest; yields its file, or None if there is none."""
        self.findings.look("objects")
        try:
            with fetch(uri) as copy:
                if fault := _fault(copy, size, sha256):
                    self._differ("objects", uri, fault)
                yield copy.file
        except FileNotFoundError:
            self._differ("objects", uri, "not there, although the shard is committed")
            yield None

    def _read_rows(self, uri: str, file: Any, wanted: pa.Schema, checks: Any) -> bool:
        """Give every batch to the checks. Returns whether all could be read."""
        self.findings.look("pages")
        try:
            table = open_table(file)
            if not self._compare_schema(uri, table.schema_arrow, wanted):
                return False
            for batch in table.iter_batches(_batch_rows(table.metadata), use_threads=False):
                checks.add(batch)
        except Exception as error:  # Arrow may raise anything for a damaged file
            self._differ("pages", uri, f"cannot be read: {type(error).__name__}: {error}")
            return False
        return True

    def _compare_schema(self, uri: str, found: pa.Schema, wanted: pa.Schema) -> bool:
        """Compare the schema. Returns whether the rows can be checked: names and types are right."""
        self.findings.look("schema")
        same = found.names == wanted.names
        if not same:
            missing, more = set(wanted.names) - set(found.names), set(found.names) - set(wanted.names)
            self._differ(
                "schema", uri, f"columns missing: {sorted(missing)}, unknown: {sorted(more)}, or in other order"
            )
        elif other := [name for name in wanted.names if not found.field(name).equals(wanted.field(name), True)]:
            same = all(found.field(name).type.equals(wanted.field(name).type) for name in other)
            message = f"{found.field(other[0])} with {found.field(other[0]).metadata}: not as in schemas/"
            self._differ("schema", uri, message, column=other[0])
        provenance = {key.encode(): value.encode() for key, value in self._record.file_metadata().items()}
        metadata = found.metadata or {}
        if wrong := sorted(key.decode() for key, value in provenance.items() if metadata.get(key) != value):
            self._differ("schema", uri, f"the footer's {', '.join(wrong)} are not those of the record")
        return bool(same)

    def _compare_counts(self, manifest: ShardManifest, found: dict[str, Any]) -> None:
        self.findings.look("counts", len(found))
        for name, value in found.items():
            said = getattr(manifest, name)
            if not (math.isclose(said, value, rel_tol=1e-9) if isinstance(value, float) else said == value):
                uri = self._layout.manifest(self._spec.shard_id)
                self._differ("counts", uri, f"{name} is {said!r}, and the object has {value!r}")

    def _differ(self, check: str, uri: str, message: str, column: str | None = None) -> None:
        remedy, shard_id = self._remedy(), self._spec.shard_id
        self.findings.differ(
            Difference(check=check, uri=uri, shard_id=shard_id, column=column, message=message, remedy=remedy)
        )

    def _remedy(self) -> str:
        names = (
            self._layout.manifest(self._spec.shard_id),
            self._layout.data(self._spec),
            self._layout.rejects(self._spec),
        )
        objects = ", ".join(storage.relative(uri, self._layout.root) for uri in names)
        return (
            f"delete what there is of {objects} (`moss-tok repair --read` does, where they are not what was written), "
            "and run `moss-tok tokenize` again: it does this shard alone"
        )


class _RejectChecks:
    """Checks the rows of a rejects object."""

    def __init__(self, shard_id: str, uri: str, findings: Findings, remedy: str) -> None:
        self.reasons: Counter[str] = Counter()
        self._shard_id, self._uri, self._findings, self._remedy = shard_id, uri, findings, remedy
        self._indices: list[np.ndarray] = []

    def add(self, batch: pa.RecordBatch) -> None:
        rows = batch.to_pylist()
        self._findings.look("ids", len(rows))
        self._findings.look("rejects", len(rows))
        indices = clip_indices(self._shard_id, [row["id"] for row in rows])
        self._indices.append(indices[indices >= 0])
        for row, index in zip(rows, indices, strict=True):
            self.reasons[row["reason"]] += 1
            if index < 0:
                self._differ("ids", row, "id", f"{row['id']!r} is no id of this shard")
            if row["stage"] not in REJECT_STAGES or row["reason"] not in KNOWN_REASONS or not row["message"]:
                self._differ("rejects", row, "reason", f"{row['stage']!r}, {row['reason']!r}: no reason that is known")

    def indices(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.int64), *self._indices])

    def _differ(self, check: str, row: dict[str, Any], column: str, message: str) -> None:
        place = {"uri": self._uri, "shard_id": self._shard_id, "clip_id": row["id"], "column": column}
        self._findings.differ(Difference(check=check, message=message, remedy=self._remedy, **place))


def _fault(copy: FetchedObject, size: int, sha256: str) -> str | None:
    if copy.size != size:
        return f"{copy.size} bytes, and the manifest says {size}"
    return None if copy.sha256 == sha256 else f"SHA-256 {copy.sha256}, and the manifest says {sha256}"


def _batch_rows(footer: pq.FileMetaData) -> int:
    rows = int(footer.num_rows)
    size = sum(int(footer.row_group(group).total_byte_size) for group in range(footer.num_row_groups))
    return max(1, min(rows, BATCH_BYTES * rows // max(1, size)))
