"""Whole jobs on storage that goes away, keeps no promises or is full: what comes of it is what a clean run writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import s3fs

from pipeline import storage
from pipeline.dataset.commit import publish_shard
from pipeline.dataset.dataset import read_output
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, commit, read_manifests
from pipeline.distributed.actor import TokenizerActor
from pipeline.distributed.driver import run
from pipeline.items import ShardSpec
from tests.rclone import rclone
from tests.seaweed import Seaweed, s3_clients
from tests.shards import ATTEMPT, SPEC, shard_bytes
from tests.support import (
    CORPUS,
    DEADLINE_SECONDS,
    FORKSERVER,
    ROOT,
    demo_config,
    start_command,
    tokenize_in_process,
    wait_for,
)

PACKINGS = ("folder/manifest.jsonl", "webdataset/*.tar", "parquet/*.parquet")


@pytest.fixture
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A server whose bucket `audio` holds the demo corpus."""
    server = Seaweed(tmp_path_factory.mktemp("weed"))
    try:
        server.start()
        with s3_clients(server.environment):
            bucket = s3fs.S3FileSystem()
            bucket.mkdir("audio")
            bucket.put(f"{CORPUS}/", "audio/corpus/", recursive=True)
            yield server
    finally:
        server.kill()


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """A store without conditional writes, with a bucket `audio`."""
    (tmp_path / "buckets" / "audio").mkdir(parents=True)
    with rclone(tmp_path / "buckets") as environment, s3_clients(environment):
        yield environment


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a local run of SETTINGS that nothing happened to."""
    output = tmp_path_factory.mktemp("clean") / "codes"
    tokenize_in_process(demo_config(output, *SETTINGS))
    return objects(str(output), "data", "rejects")


def sources(root: str, *packings: str) -> str:
    return "input.splits.train=[" + ", ".join(f"'{root}/{packing}'" for packing in packings) + "]"


def objects(root: str, *kinds: str) -> dict[str, bytes]:
    """The objects below these folders of an output, by their place in it."""
    found = [info.uri for kind in kinds for info in storage.list_objects(f"{root}/{kind}")]
    return {uri.removeprefix(root): storage.read_bytes(uri) for uri in found}


def count(files: Mapping[str, bytes]) -> int:
    return sum(pq.read_metadata(pa.BufferReader(data)).num_rows for data in files.values())


def test_a_run_outlives_the_death_of_the_store_and_ends_with_the_bytes_of_a_clean_one(
    weed: Seaweed, inventory: list[dict[str, Any]]
) -> None:
    settings = [sources("s3://audio/corpus", *PACKINGS), "input.clips_per_shard=4"]
    tokenize_in_process(demo_config(Path("clean"), *settings, "output.uri=s3://audio/clean"))
    job = start_command("tokenize", "configs/demo.yaml", *settings, "output.uri=s3://audio/codes", "cluster.actors=1")
    wait_for(lambda: len(storage.list_names("s3://audio/codes/_moss_tok/shards")) >= 2 or job.poll() is not None)
    assert job.poll() is None, job.communicate()[1]
    committed = len(storage.list_names("s3://audio/codes/_moss_tok/shards"))
    weed.kill()
    assert job.poll() is None, "the run was over before the server was killed"
    weed.start()
    _, complaint = job.communicate(timeout=DEADLINE_SECONDS)
    assert job.returncode == 0, complaint
    assert committed < len(read_output("s3://audio/codes").specs)
    made = objects("s3://audio/codes", "data", "rejects")
    assert made == objects("s3://audio/clean", "data", "rejects")
    assert count(made) == len(inventory)


def away_at_first() -> type[TokenizerActor]:
    """Actors whose first try of each shard finds the store away, and whose second try does in a reader."""

    @ray.remote(num_returns="streaming")
    def read() -> Iterator[None]:
        raise storage.StoreUnavailable("s3://audio/a.tar: cannot read it, tried for 60 s: no route to host")
        yield

    class AwayAtFirst(TokenizerActor):
        def tokenize(self, spec: ShardSpec, attempt: int, *codecs: Any) -> list[ShardManifest]:
            if attempt == 1:
                raise storage.StoreUnavailable("s3://audio/codes: cannot write it, tried for 60 s: no route to host")
            if attempt == 2:
                ray.get(next(read.remote()))
            return super().tokenize(spec, attempt, *codecs)

    return AwayAtFirst


@pytest.mark.slow
def test_a_store_that_is_away_for_longer_than_a_call_waits_costs_no_shard_its_tries(
    tmp_path: Path, clean: dict[str, bytes]
) -> None:
    config = demo_config(tmp_path / "codes", *SETTINGS, "run.max_attempts=1", "cluster.actors=1")
    summary = run(config, away_at_first())
    assert (summary.failures, summary.stopped) == ([], None)
    assert objects(str(tmp_path / "codes"), "data", "rejects") == clean


SETTINGS = (sources(str(CORPUS), "webdataset/*.tar", "parquet/*.parquet"), "input.clips_per_shard=10")


def tokenize_when_all_are_ready(output: str, environment: Mapping[str, str], ready: Barrier) -> None:
    """The whole of a process: the server that it was forked from may know another store."""
    os.environ.update(environment)
    ready.wait(DEADLINE_SECONDS)
    tokenize_in_process(demo_config(Path(output), *SETTINGS, f"output.uri={output}"))


def run_two_jobs(output: str) -> None:
    given = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    arguments = (output, given, FORKSERVER.Barrier(2))
    jobs = [FORKSERVER.Process(target=tokenize_when_all_are_ready, args=arguments) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(DEADLINE_SECONDS)
    assert [job.exitcode for job in jobs] == [0, 0]


def test_two_jobs_on_one_output_in_a_bucket_make_it_once(weed: Seaweed, clean: dict[str, bytes]) -> None:
    run_two_jobs("s3://audio/codes")
    assert objects("s3://audio/codes", "data", "rejects") == clean


def test_on_a_store_without_conditions_two_jobs_make_no_row_twice_and_say_what_the_store_lacks(
    careless: Mapping[str, str], clean: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    run_two_jobs("s3://audio/codes")
    assert objects("s3://audio/codes", "data", "rejects") == clean
    assert not storage.supports_conditional_create("s3://audio/codes/_moss_tok")
    assert "replaces objects even where it is asked not to" in caplog.text
    names = storage.list_names("s3://audio/codes/_moss_tok")
    assert names == {"machine.json", "plan.parquet", "run.json", "totals.json", "shards"}, (
        "what it was tried out with is gone"
    )


def test_on_a_store_without_conditions_the_first_shard_stays_whoever_comes_late(careless: Mapping[str, str]) -> None:
    layout = Layout("s3://audio/late")
    first = publish_shard(layout, SPEC, *shard_bytes(versions={"torch": "2.10"}), ATTEMPT)
    data = storage.read_bytes(layout.data(SPEC))
    assert publish_shard(layout, SPEC, *shard_bytes(versions={"torch": "2.11"}), ATTEMPT) == first
    assert commit(layout, first) == first
    assert storage.read_bytes(layout.data(SPEC)) == data
    assert list(read_manifests(layout, {SPEC.shard_id})) == [first]
    assert storage.list_names("s3://audio/late/data/train") == {f"{SPEC.shard_id}.parquet"}


LIMITED = """
import resource, sys
from pipeline import storage
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    (storage.create if sys.argv[2] == "create" else storage.publish)(sys.argv[1], bytes(5_000_000))
except storage.StorageError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("action", ["create", "publish"])
def test_a_disk_that_takes_no_more_is_a_clear_error_and_leaves_nothing_half_written(
    tmp_path: Path, action: str
) -> None:
    """The kernel refuses in the middle of the write, as it does on a full disk."""
    uri = tmp_path / "data" / "object.bin"
    uri.parent.mkdir()
    if action == "publish":
        uri.write_bytes(b"old")
    command = [sys.executable, "-c", LIMITED, str(uri), action]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"StorageError {uri}: cannot write it: [Errno 27] File too large")
    assert {path.name: path.read_bytes() for path in uri.parent.iterdir()} == (
        {"object.bin": b"old"} if action == "publish" else {}
    )


TOKENIZE_LIMITED = """
import resource, sys
from tests.support import demo_config, tokenize_in_process
limit, output, *settings = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
tokenize_in_process(demo_config(output, *settings))
"""


def test_a_run_on_a_full_disk_fails_by_name_and_goes_on_when_there_is_room(
    tmp_path: Path, clean: dict[str, bytes]
) -> None:
    output = tmp_path / "codes"
    limit = min(len(data) for name, data in clean.items() if name.startswith("/data")) - 1
    command = [sys.executable, "-c", TOKENIZE_LIMITED, str(limit), str(output), *SETTINGS]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "data/train" in result.stderr.splitlines()[-1]
    assert "cannot write it: [Errno 27] File too large" in result.stderr
    assert not list(output.glob("data/**/*.*"))
    assert not (output / "_SUCCESS").exists()
    tokenize_in_process(demo_config(output, *SETTINGS))
    assert objects(str(output), "data", "rejects") == clean
    assert (output / "_SUCCESS").exists()
