"""The commit of a shard: what is there decides, whoever made it, and a manifest can be made of the objects alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.dataset.commit import AttemptInfo, OutputConflict, publish_shard, rebuild_manifest
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, committed_ids, read_manifests
from tests.shards import ATTEMPT, SPEC, VERSIONS, shard_bytes


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "out"))


def publish(layout: Layout, objects: tuple[bytes, bytes]) -> ShardManifest:
    return publish_shard(layout, SPEC, *objects, ATTEMPT)


def test_a_shard_is_its_data_its_rejects_and_the_manifest_that_counts_them(layout: Layout) -> None:
    data, rejects = shard_bytes()
    manifest = publish(layout, (data, rejects))
    assert storage.read_bytes(layout.data(SPEC)) == data
    assert storage.read_bytes(layout.rejects(SPEC)) == rejects
    assert list(read_manifests(layout, {SPEC.shard_id})) == [manifest]
    assert (manifest.rows, manifest.rejects, manifest.rejects_by_reason) == (20, 3, {"truncated": 2, "empty": 1})
    assert (manifest.frames, manifest.audio_seconds, manifest.input_bytes) == (200, 16.0, 9_999)
    assert (manifest.output_bytes, manifest.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (manifest.rejects_bytes, manifest.rejects_sha256) == (len(rejects), hashlib.sha256(rejects).hexdigest())
    assert (manifest.uri, manifest.version, manifest.input_size) == (SPEC.uri, SPEC.version, SPEC.size)
    assert (manifest.attempt, manifest.started_at, manifest.versions) == (2, ATTEMPT.started_at, VERSIONS)
    assert manifest.finished_at > manifest.started_at
    assert manifest.seconds["write"] > 0.25


def test_a_shard_without_rejects_has_no_rejects_object(layout: Layout) -> None:
    manifest = publish(layout, shard_bytes(rejects=0))
    assert (manifest.rejects, manifest.rejects_bytes, manifest.rejects_sha256) == (0, 0, "")
    assert storage.stat(layout.rejects(SPEC)) is None


def test_a_manifest_is_rebuilt_from_the_objects_but_for_what_it_took_to_make_them(layout: Layout) -> None:
    manifest = publish(layout, shard_bytes())
    rebuilt = rebuild_manifest(layout, SPEC)
    attempt = {"attempt": 0, "seconds": {}, "started_at": rebuilt.started_at, "finished_at": rebuilt.finished_at}
    assert rebuilt == replace(manifest, **attempt)
    assert rebuilt.started_at >= manifest.finished_at


@pytest.mark.parametrize("left", ["data", "data and rejects", "everything"])
def test_a_run_that_died_is_finished_by_the_next_one_wherever_it_stopped(layout: Layout, left: str) -> None:
    data, rejects = shard_bytes()
    storage.create(layout.data(SPEC), data)
    if left != "data":
        storage.create(layout.rejects(SPEC), rejects)
    if left == "everything":
        publish(layout, (data, rejects))
    manifest = publish(layout, (data, rejects))
    assert storage.read_bytes(layout.rejects(SPEC)) == rejects
    assert list(read_manifests(layout, {SPEC.shard_id})) == [manifest]


def test_what_another_worker_made_with_other_library_versions_is_kept_and_counted(layout: Layout) -> None:
    theirs = shard_bytes(versions={"torch": "2.10"})
    storage.create(layout.data(SPEC), theirs[0])
    storage.create(layout.rejects(SPEC), theirs[1])
    manifest = publish(layout, shard_bytes())
    assert (manifest.sha256, manifest.versions) == (hashlib.sha256(theirs[0]).hexdigest(), {"torch": "2.10"})
    assert storage.read_bytes(layout.data(SPEC)) == theirs[0]
    assert committed_ids(layout) == {SPEC.shard_id}


def test_where_two_workers_reject_differently_no_clip_is_twice_and_none_is_lost(layout: Layout) -> None:
    """A clip may take too long on one machine and not on another: the first data object decides for all."""
    theirs = shard_bytes(rows=19, rejects=4)
    publish(layout, theirs)
    manifest = publish(layout, shard_bytes(rows=23, rejects=0))
    assert (manifest.rows, manifest.rejects) == (19, 4)
    assert storage.read_bytes(layout.rejects(SPEC)) == theirs[1]


@pytest.mark.parametrize("other", [{"fingerprint": "f2"}, {"rows": 21}], ids=["settings", "clips"])
def test_what_a_job_with_other_settings_or_input_made_is_a_conflict_and_stays(
    layout: Layout, other: dict[str, int | str]
) -> None:
    theirs = shard_bytes(**other)  # type: ignore[arg-type]
    storage.create(layout.data(SPEC), theirs[0])
    storage.create(layout.rejects(SPEC), theirs[1])
    with pytest.raises(OutputConflict, match="two jobs with different settings or inputs"):
        publish(layout, shard_bytes())
    assert storage.read_bytes(layout.data(SPEC)) == theirs[0]
    assert committed_ids(layout) == set()


@pytest.mark.parametrize("damage", ["cut", "empty", "no-parquet", "flipped", "foreign", "rejects-gone", "rejects-cut"])
def test_objects_that_are_no_whole_shard_are_named_and_never_counted(layout: Layout, damage: str) -> None:
    data, rejects = shard_bytes(versions={"torch": "2.10"})
    if damage == "flipped":
        data = bytes(byte ^ 0x10 if 4 <= place < 4_000 else byte for place, byte in enumerate(data))
    data = {"cut": data[:-100], "empty": b"", "no-parquet": b"x" * 500}.get(damage, data)
    if damage == "foreign":
        data, rejects = shard_bytes(shard_id="0123456789abcdef")
    storage.create(layout.data(SPEC), data)
    if damage != "rejects-gone":
        storage.create(layout.rejects(SPEC), rejects[:-50] if damage == "rejects-cut" else rejects)
    for attempt in (lambda: rebuild_manifest(layout, SPEC), lambda: publish(layout, shard_bytes())):
        with pytest.raises(OutputConflict, match=rf"{SPEC.shard_id}\.parquet and its rejects are no whole shard"):
            attempt()
    assert committed_ids(layout) == set()
    assert storage.read_bytes(layout.data(SPEC)) == data


def test_without_a_data_object_there_is_nothing_to_rebuild(layout: Layout) -> None:
    with pytest.raises(FileNotFoundError):
        rebuild_manifest(layout, SPEC)


def test_data_files_hold_no_time_attempt_or_place(layout: Layout, tmp_path: Path) -> None:
    elsewhere = Layout(str(tmp_path / "elsewhere"))
    publish(layout, shard_bytes())
    publish_shard(elsewhere, SPEC, *shard_bytes(), AttemptInfo(attempt=1, started_at=0.0, seconds={}))
    assert storage.read_bytes(layout.data(SPEC)) == storage.read_bytes(elsewhere.data(SPEC))
