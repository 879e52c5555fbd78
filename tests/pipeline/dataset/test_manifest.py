"""Manifests: their presence is the commit, and they say what was committed."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, commit, committed_ids, read_manifests
from pipeline.items import ShardSpec

MANIFEST = ShardManifest(
    shard_id="f00d",
    split="train",
    uri="s3://bucket/a.tar",
    version="12-etag",
    input_size=1_200,
    fingerprint="0123",
    rows=10,
    rejects=2,
    rejects_by_reason={"empty": 1, "truncated": 1},
    audio_seconds=12.5,
    frames=157,
    input_bytes=1000,
    output_bytes=500,
    sha256="ab",
    rejects_bytes=50,
    rejects_sha256="cd",
    attempt=1,
    started_at=1_700_000_000.25,
    finished_at=1_700_000_001.5,
    seconds={"read": 0.1, "encode": 2.0},
    versions={"torch": "2.11"},
)


@pytest.fixture(params=["local", "memory"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out")


def test_a_shard_is_committed_once_its_manifest_is_there(layout: Layout) -> None:
    assert committed_ids(layout) == set()
    commit(layout, MANIFEST)
    assert committed_ids(layout) == {"f00d"}
    commit(layout, replace(MANIFEST, shard_id="beef"))
    assert committed_ids(layout) == {"f00d", "beef"}


def test_manifests_are_read_back_as_they_were_sorted_by_id(layout: Layout) -> None:
    manifests = [replace(MANIFEST, shard_id=f"{number:04x}", rows=number) for number in range(40)]
    for manifest in reversed(manifests):
        commit(layout, manifest)
    assert list(read_manifests(layout, committed_ids(layout))) == manifests
    assert list(read_manifests(layout, {"0003"})) == [manifests[3]]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"shard_id": "f00d"}', b"\xff"])
def test_a_manifest_that_cannot_be_understood_is_named(layout: Layout, data: bytes) -> None:
    storage.publish(layout.manifest("f00d"), data)
    with pytest.raises(ValueError, match=r"f00d\.json: not a manifest: .*moss-tok repair"):
        list(read_manifests(layout, {"f00d"}))


def test_a_manifest_that_is_being_written_is_no_commit(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    commit(layout, MANIFEST)
    (Path(layout.manifests) / ".beef.json.a1b2.tmp").write_text("{")
    (Path(layout.manifests) / ".beef.json").write_text("{")
    (Path(layout.manifests) / "notes.txt").write_text("")
    assert committed_ids(layout) == {"f00d"}


def test_names_in_any_alphabet_and_of_any_bytes_are_kept(layout: Layout) -> None:
    manifest = replace(MANIFEST, uri=f"/ünï/日本/{os.fsdecode(b'latin-' + bytes([0xE9]))}.tar")
    commit(layout, manifest)
    assert list(read_manifests(layout, {"f00d"})) == [manifest]
    assert "日本" in storage.read_bytes(layout.manifest("f00d")).decode("utf-8")


def test_the_same_manifest_is_the_same_bytes_and_people_can_read_it(tmp_path: Path) -> None:
    one, other = Layout(str(tmp_path / "a")), Layout(str(tmp_path / "b"))
    commit(one, MANIFEST)
    commit(other, replace(MANIFEST, rejects_by_reason={"truncated": 1, "empty": 1}))
    assert Path(one.manifest("f00d")).read_bytes() == Path(other.manifest("f00d")).read_bytes()
    document = json.loads(Path(one.manifest("f00d")).read_text())
    assert list(document) == sorted(document)


def test_everything_of_a_shard_is_found_from_its_id() -> None:
    layout = Layout("s3://bucket/out")
    spec = ShardSpec(split="test.clean", format="webdataset", uri="s3://bucket/a.tar", size=1, version="")
    assert layout.data(spec) == f"s3://bucket/out/data/test.clean/{spec.shard_id}.parquet"
    assert layout.rejects(spec) == f"s3://bucket/out/rejects/test.clean/{spec.shard_id}.parquet"
    assert layout.manifest(spec.shard_id) == f"s3://bucket/out/_moss_tok/shards/{spec.shard_id}.json"
