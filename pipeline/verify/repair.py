"""Repairs an output without reading any audio: lost and damaged manifests, and damaged shards.

A lost or damaged manifest is rebuilt from the objects of its shard. A shard whose objects are gone, or not what was
committed, is undone: its manifest and objects are deleted, so that the next run does only this shard again.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

from pipeline import storage
from pipeline.concurrency import in_order
from pipeline.dataset.commit import OutputConflict, rebuild_manifest, undo_shard
from pipeline.dataset.dataset import read_output
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, commit, read_manifest
from pipeline.dataset.recovery import restore
from pipeline.items import ShardSpec
from pipeline.monitoring.heartbeat import read_heartbeats

THREADS = 16  # small reads: their time is the store's latency


@dataclass(slots=True)
class Repairs:
    """What was found and done."""

    shards: int
    restored: list[str] = field(default_factory=list)
    """URIs of the record and the plan, if they had to be made again."""
    sound: int = 0
    missing: int = 0
    """Number of shards that are not done yet: they have no object."""
    rebuilt: dict[str, str] = field(default_factory=dict)
    """Why the manifest was rebuilt, by id of the shard."""
    undone: dict[str, str] = field(default_factory=dict)
    """Why the shard was undone, by id."""


class OutputInUse(ValueError):
    """A run seems to be working on the output; the message names it and says what to do."""


def repair(uri: str, read: bool = False, force: bool = False) -> Repairs:
    """Repair the output at `uri`, which no run may be working on.

    With `read`, every object is read and hashed; without, only sizes are compared. With `force`, heartbeats of runs are
    ignored. Raises FileNotFoundError if there is no output, CannotRestore if its record or its plan is lost and cannot
    be made again, and OutputInUse.
    """
    layout = Layout(storage.absolute(uri))
    if not force:
        _refuse_beside_a_run(layout)
    restored = restore(layout)
    output = read_output(uri)
    fingerprint = output.record.fingerprint
    repairs = Repairs(shards=len(output.specs), restored=restored)

    def repair_one(spec: ShardSpec) -> tuple[str, str, str]:
        return (spec.shard_id, *_repair_shard(layout, spec, spec.shard_id in output.done, fingerprint, read))

    for shard_id, state, reason in in_order(repair_one, output.specs, THREADS):
        if state == "rebuilt":
            repairs.rebuilt[shard_id] = reason
        elif state == "undone":
            repairs.undone[shard_id] = reason
        elif state == "sound":
            repairs.sound += 1
        else:
            repairs.missing += 1
    if restored or repairs.rebuilt or repairs.undone or repairs.missing:
        # They describe the output as it was before. The next run writes them again.
        storage.remove(layout.success)
        storage.remove(layout.totals)
    return repairs


def _refuse_beside_a_run(layout: Layout) -> None:
    """Beside a run, a shard may have data and no manifest yet. To undo it would destroy good work."""
    now = time.time()
    for beat in read_heartbeats(layout):
        if beat.may_be_at_work(now):
            raise OutputInUse(
                f"{layout.root}: the run {beat.run_id} (process {beat.pid} on {beat.host}) was at work on it "
                f"{now - beat.moved_at:.0f} s ago: stop it; if it is dead already, wait a minute or give --force"
            )


def _repair_shard(layout: Layout, spec: ShardSpec, done: bool, fingerprint: str, read: bool) -> tuple[str, str]:
    """The new state of a shard (sound, rebuilt, undone or missing), and why."""
    trouble = "its manifest was lost"
    if done:
        try:
            difference = _difference(layout, spec, read_manifest(layout, spec.shard_id), read)
        except ValueError as error:
            trouble = str(error)
        else:
            return _undo(layout, spec, difference) if difference else ("sound", "")
    try:
        manifest = rebuild_manifest(layout, spec)
    except FileNotFoundError:
        if not done and storage.stat(layout.rejects(spec)) is None:
            return "missing", ""
        return _undo(layout, spec, f"{trouble}, and its data too")
    except OutputConflict as error:
        return _undo(layout, spec, f"{trouble}, and {error}")
    if manifest.fingerprint != fingerprint:
        return _undo(layout, spec, f"{trouble}, and {layout.data(spec)} was made with other settings")
    storage.remove(layout.manifest(spec.shard_id))
    commit(layout, manifest)
    return "rebuilt", trouble


def _difference(layout: Layout, spec: ShardSpec, manifest: ShardManifest, read: bool) -> str:
    """How the objects differ from the manifest; empty if they do not."""
    compare = _by_content if read else _by_size
    return compare(layout.data(spec), manifest.output_bytes, manifest.sha256) or compare(
        layout.rejects(spec), manifest.rejects_bytes, manifest.rejects_sha256
    )


def _by_size(uri: str, size: int, sha256: str) -> str:
    found = storage.stat(uri)
    if found is None:
        return f"{uri} is gone" if size else ""
    return "" if found.size == size else f"{uri} has {found.size} bytes instead of {size}"


def _by_content(uri: str, size: int, sha256: str) -> str:
    if difference := _by_size(uri, size, sha256):
        return difference
    if not size or hashlib.sha256(storage.read_bytes(uri)).hexdigest() == sha256:
        return ""
    return f"{uri} is not what was written: its SHA-256 differs"


def _undo(layout: Layout, spec: ShardSpec, reason: str) -> tuple[str, str]:
    """Delete a shard, so that the next run does it again."""
    undo_shard(layout, spec)
    return "undone", reason
