"""The commit of a shard: data, rejects and manifest, written in this order, each created once.

The data object decides. Its footer names the shard and the rejects object that goes with it, so every worker can finish
the commit from there. The manifest is made of the two objects, and of nothing else but the attempt, its times and its
busy seconds.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, commit, read_manifest
from pipeline.items import ShardSpec
from pipeline.parquet import read_table
from pipeline.parquet_checksum import check_parquet
from pipeline.steps.reject_reasons import MAY_PASS

_SHARD = "moss_tok.shard"


class OutputConflict(RuntimeError):
    """Another object has this name already and does not fit this shard. The message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """What the manifest says of the attempt, which the objects do not tell."""

    attempt: int
    started_at: float
    seconds: Mapping[str, float]
    machine: Mapping[str, str] = field(default_factory=dict)


def shard_metadata(shard_id: str, clips: int, input_bytes: int, rejects: bytes) -> dict[str, str]:
    """The entry in the footer of a data object about its shard: clips in the source, bytes read, and its rejects
    object."""
    summary = {
        "shard_id": shard_id,
        "clips": clips,
        "input_bytes": input_bytes,
        "rejects_bytes": len(rejects),
        "rejects_sha256": _sha256(rejects),
    }
    return {_SHARD: json.dumps(summary, sort_keys=True)}


def publish_shard(layout: Layout, spec: ShardSpec, data: bytes, rejects: bytes, attempt: AttemptInfo) -> ShardManifest:
    """Create the data object, the rejects object if there are rejects, and the manifest, which commits them.

    Returns the manifest that counts. Another worker may have been first: a second job, a worker that was thought dead,
    a run that died before it wrote the manifest. If it had the same settings and the same clips, what it made is kept
    and its manifest counts. Raises OutputConflict if anything else is there.
    """
    began = time.perf_counter()
    mine = _describe(spec, data, rejects)
    labels = {"fingerprint": mine.fingerprint, "rows": str(mine.rows), "sha256": mine.sha256}
    if _create(layout.data(spec), data, labels):
        _put_rejects(layout.rejects(spec), rejects, labels | {"sha256": mine.rejects_sha256})
        seconds = {**attempt.seconds, "write": attempt.seconds.get("write", 0.0) + time.perf_counter() - began}
        manifest = replace(
            mine,
            attempt=attempt.attempt,
            started_at=round(attempt.started_at, 3),
            finished_at=round(time.time(), 3),
            seconds={stage: round(spent, 6) for stage, spent in seconds.items()},
            machine=dict(attempt.machine),
        )
    else:
        manifest = rebuild_manifest(layout, spec)
        theirs = (manifest.fingerprint, manifest.rows + manifest.rejects)
        if theirs != (mine.fingerprint, mine.rows + mine.rejects):
            raise OutputConflict(
                f"{layout.data(spec)} is there, of {theirs[1]} clips with the fingerprint {theirs[0]}; this run has "
                f"{mine.rows + mine.rejects} with {mine.fingerprint}: two jobs with different settings or inputs write "
                "to one output"
            )
    return commit(layout, manifest)


def replace_shard(
    layout: Layout, spec: ShardSpec, data: bytes, rejects: bytes, attempt: AttemptInfo, old: ShardManifest
) -> ShardManifest:
    """Commit a shard that was done again in place of what was committed as `old`, if it is better.

    It is, if it has fewer rejects whose reason may pass, and no fewer rows.

    Returns the manifest that counts: `old` if nothing is gained, and another's if another run was faster. What was
    committed is undone and the new shard is published like any other. Where that is cut short, `old` is still there
    without its objects, or nothing is: the next run does the shard again.
    """
    mine = _describe(spec, data, rejects)
    if mine.rows + mine.rejects != old.rows + old.rejects:
        raise OutputConflict(f"{spec.place}: {mine.rows + mine.rejects} clips, and {old.rows + old.rejects} were there")
    try:
        current = read_manifest(layout, spec.shard_id)
    except FileNotFoundError:
        return publish_shard(layout, spec, data, rejects, attempt)
    if current != old or (not _is_better(mine, old) and is_whole(layout, spec, old)):
        return current
    for uri in (layout.success, layout.totals):  # they hold checksums and sums of what is deleted next
        storage.remove(uri)
    undo_shard(layout, spec)
    return publish_shard(layout, spec, data, rejects, attempt)


def _is_better(new: ShardManifest, old: ShardManifest) -> bool:
    """Of a file that is there again may come a row, or a reject that says what is wrong with it."""
    passing = [sum(one.rejects_by_reason.get(reason, 0) for reason in MAY_PASS) for one in (new, old)]
    return passing[0] < passing[1] and new.rows >= old.rows


def undo_shard(layout: Layout, spec: ShardSpec) -> None:
    """Delete what there is of a shard, so that the next run does it again. No run may be working on it.

    The manifest is deleted last: until then every run notices that the shard is not whole.
    """
    for uri in (layout.data(spec), layout.rejects(spec), layout.manifest(spec.shard_id)):
        storage.remove(uri)


def is_whole(layout: Layout, spec: ShardSpec, manifest: ShardManifest) -> bool:
    """Whether the objects of a committed shard are there and have their sizes."""
    objects = {layout.data(spec): manifest.output_bytes, layout.rejects(spec): manifest.rejects_bytes}
    found = {uri: storage.stat(uri) for uri in objects}
    return all((info.size if (info := found[uri]) else 0) == size for uri, size in objects.items())


def rebuild_manifest(layout: Layout, spec: ShardSpec) -> ShardManifest:
    """The manifest of a shard, made from its data and rejects objects alone. No audio is read, and nothing is written.

    Raises FileNotFoundError if there is no data object, OutputConflict if the two are damaged or not a whole shard.
    """
    data = storage.read_bytes(layout.data(spec))
    try:
        rejects = storage.read_bytes(layout.rejects(spec))
    except FileNotFoundError:
        rejects = b""
    try:
        check_parquet(data)  # every page, before any value is used
        return _describe(spec, data, rejects)
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise OutputConflict(
            f"{layout.data(spec)} and its rejects are no whole shard ({error}): unless another job is writing them, "
            "delete them, and run again"
        ) from error


def _put_rejects(uri: str, rejects: bytes, labels: Mapping[str, str]) -> None:
    """Make these the rejects that go with the data object, which is there and names them.

    Other rejects can only be left from a shard that was undone, because the data object is always created first.
    """
    if rejects and not _create(uri, rejects, labels):
        storage.publish(uri, rejects)
    elif not rejects and storage.stat(uri) is not None:
        storage.remove(uri)


def _create(uri: str, data: bytes, labels: Mapping[str, str]) -> bool:
    """Create the object if there is none. Returns whether its bytes are now these."""
    return storage.create(uri, data, labels) or storage.read_bytes(uri) == data


def _describe(spec: ShardSpec, data: bytes, rejects: bytes) -> ShardManifest:
    """The manifest that the two objects give, with the present time and attempt 0. Raises what Arrow raises, or
    ValueError."""
    codes = read_table(pa.BufferReader(data), ["num_frames", "num_samples"])
    footer = {key.decode(): value.decode() for key, value in (codes.schema.metadata or {}).items()}
    summary: dict[str, Any] = json.loads(footer[_SHARD])
    if summary["shard_id"] != spec.shard_id:
        raise ValueError(f"it belongs to shard {summary['shard_id']}")
    rejects_sha256 = _sha256(rejects)
    if (summary["rejects_bytes"], summary["rejects_sha256"]) != (len(rejects), rejects_sha256):
        found = f"of {len(rejects)} bytes" if rejects else "missing"
        raise ValueError(f"it goes with rejects of {summary['rejects_bytes']} bytes, and they are {found}")
    reasons = read_table(pa.BufferReader(rejects), ["reason"]).column("reason").to_pylist() if rejects else []
    if codes.num_rows + len(reasons) != summary["clips"]:
        raise ValueError(f"{codes.num_rows} rows and {len(reasons)} rejects of {summary['clips']} clips")
    now = round(time.time(), 3)
    return ShardManifest(
        shard_id=spec.shard_id,
        split=spec.split,
        uri=spec.uri,
        version=spec.version,
        input_size=spec.size,
        fingerprint=footer["moss_tok.fingerprint"],
        rows=codes.num_rows,
        rejects=len(reasons),
        rejects_by_reason=dict(Counter(reasons)),
        audio_seconds=sum(codes.column("num_samples").to_pylist()) / int(footer["moss_tok.sample_rate"]),
        frames=sum(codes.column("num_frames").to_pylist()),
        input_bytes=summary["input_bytes"],
        output_bytes=len(data),
        sha256=_sha256(data),
        rejects_bytes=len(rejects),
        rejects_sha256=rejects_sha256,
        attempt=0,
        started_at=now,
        finished_at=now,
        seconds={},
        versions=json.loads(footer["moss_tok.versions"]),
    )


def _sha256(data: bytes) -> str:
    """The SHA-256 in hexadecimal, or an empty string where there is no object."""
    return hashlib.sha256(data).hexdigest() if data else ""
