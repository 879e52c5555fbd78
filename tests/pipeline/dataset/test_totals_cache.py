"""The totals that an output keeps: never wrong, however they were left, and read instead of the manifests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.dataset import manifest
from pipeline.dataset.dataset import Output
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.provenance import RunRecord, record_run
from pipeline.dataset.totals import Totals
from pipeline.dataset.totals_cache import TotalsCache
from pipeline.items import ShardSpec
from pipeline.schema import codes_schema
from tests.support import demo_config

SPECS = [
    ShardSpec(split="train", format="webdataset", uri=f"s3://bucket/{number}.tar", size=1, version="1")
    for number in range(20)
]
ALL = {spec.shard_id for spec in SPECS}


def manifest_of(spec: ShardSpec) -> ShardManifest:
    rows = 1 + SPECS.index(spec)
    values = {field.name: "" for field in dataclasses.fields(ShardManifest)}
    numbers = dict.fromkeys(
        ("input_size", "input_bytes", "output_bytes", "rejects_bytes", "attempt", "started_at", "finished_at"), 1
    )
    return ShardManifest(
        **values
        | numbers
        | {
            "shard_id": spec.shard_id,
            "split": spec.split,
            "uri": spec.uri,
            "versions": {},
            "machine": {},
            "seconds": {"read": 0.5},
        }
        | {"rows": rows, "frames": rows * 10, "audio_seconds": rows * 0.5}
        | {"rejects": 2, "rejects_by_reason": {"empty": 2}}
    )


def cache_of(specs: list[ShardSpec]) -> TotalsCache:
    cache = TotalsCache(SPECS)
    for spec in specs:
        cache.add(manifest_of(spec))
    return cache


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return dataclasses.replace(record_run(demo_config(tmp_path_factory.mktemp("record"))), plan_sha256="the plan")


@pytest.fixture
def open_again(tmp_path: Path, record: RunRecord) -> Callable[[], Output]:
    """The output as a new process would find it."""
    layout = Layout(str(tmp_path))
    return lambda: Output(layout, record, SPECS, manifest.committed_ids(layout))


def test_a_shard_is_counted_once_however_often_it_is_added():
    cache = cache_of(SPECS[:3] + SPECS[1:5])
    assert cache.totals.shards == 5
    assert cache.totals.rows == 1 + 2 + 3 + 4 + 5
    assert cache.uncounted(ALL) == {spec.shard_id for spec in SPECS[5:]}
    assert not cache.complete
    assert cache_of(SPECS).complete


def test_ids_that_are_not_in_the_plan_are_never_counted():
    assert cache_of([]).uncounted({"0123456789abcdef", SPECS[0].shard_id}) == {SPECS[0].shard_id}


def test_what_is_written_is_read_back():
    cache = cache_of(SPECS[::3])
    again = TotalsCache.from_bytes(cache.to_bytes("plan"), "plan", SPECS, ALL)
    assert again.totals == cache.totals
    assert again.uncounted(ALL) == cache.uncounted(ALL)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-9],
        lambda data: data.replace(b'"rows": 15', b'"rows": 16'),
        lambda data: cache_of(SPECS[:5]).to_bytes("another plan"),
    ],
)
def test_totals_that_cannot_be_trusted_are_not_used(spoil: Callable[[bytes], bytes]):
    good = cache_of(SPECS[:5]).to_bytes("plan")
    assert TotalsCache.from_bytes(good, "plan", SPECS, ALL).totals.rows == 15
    assert TotalsCache.from_bytes(spoil(good), "plan", SPECS, ALL).totals == Totals()


def test_a_manifest_that_was_deleted_to_do_its_shard_again_is_not_counted(open_again: Callable[[], Output]):
    for spec in SPECS[:5]:
        manifest.commit(open_again().layout, manifest_of(spec))
    open_again().save(cache_of(SPECS[:5]))
    Path(open_again().layout.manifest(SPECS[4].shard_id)).unlink()
    assert open_again().totals().rows == 1 + 2 + 3 + 4


def test_only_the_manifests_that_are_not_counted_are_read(open_again: Callable[[], Output]):
    """Those that are counted are spoilt here, which would be noticed if one were read."""
    for spec in SPECS[:10]:
        manifest.commit(open_again().layout, manifest_of(spec))
    open_again().save(cache_of(SPECS[:8]))
    for spec in SPECS[:8]:
        Path(open_again().layout.manifest(spec.shard_id)).write_text("spoilt")
    assert open_again().totals() == cache_of(SPECS[:10]).totals


def test_two_jobs_that_each_know_a_part_end_with_the_whole(open_again: Callable[[], Output]):
    """Each gave up a shard that the other committed: the one that ends last finds all of them, and says so."""
    one, other = open_again(), open_again()
    tallies = (one.totals_cache(), other.totals_cache())
    no_rows = codes_schema(one.record.code_columns).empty_table()
    for number, spec in enumerate(SPECS):
        data = Path(one.layout.data(spec))
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(no_rows, data)
        manifest.commit(one.layout, manifest_of(spec))
        tallies[number % 2].add(manifest_of(spec))
    Path(one.layout.plan).write_bytes(b"plan")
    Path(one.layout.run).write_bytes(b"run")
    assert one.finish(tallies[0]) == cache_of(SPECS).totals
    assert Path(one.layout.success).exists()
    assert other.finish(tallies[1]) == cache_of(SPECS).totals


def test_a_million_counted_shards_take_little_room():
    specs = [dataclasses.replace(SPECS[0], start=number) for number in range(10_000)]
    cache = TotalsCache(specs)
    cache._counted[::7] = b"\1" * len(cache._counted[::7])
    assert len(cache.to_bytes("plan")) < 10_000 / 4
