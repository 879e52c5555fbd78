"""The whole job from a bucket to a bucket, on a real S3 server: the bytes that a local run writes."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline import storage
from pipeline.config import parse_config
from pipeline.dataset.dataset import read_output
from pipeline.dataset.opening import with_absolute_uris
from pipeline.loading.decode import SoundFiles, decode_rows, load_decoder
from pipeline.loading.rows import RowQuery, select_rows
from pipeline.verify import verify
from tests.seaweed import s3_clients, seaweed
from tests.support import CORPUS, demo_config, rows, run_command, tokenize_in_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    with seaweed(tmp_path_factory.mktemp("weed")) as environment, s3_clients(environment):
        yield environment


@pytest.fixture(scope="module")
def bucket(server: Mapping[str, str]) -> s3fs.S3FileSystem:
    """A client, and a bucket `audio` that holds the demo corpus."""
    client = s3fs.S3FileSystem()
    client.mkdir("audio")
    client.put(f"{CORPUS}/", "audio/corpus/", recursive=True)
    return client


def test_a_run_between_buckets_makes_every_clip_a_row_or_a_reject(
    bucket: s3fs.S3FileSystem, server: Mapping[str, str], inventory: list[dict[str, Any]], tmp_path: Path
):
    packings = ("folder/manifest.jsonl", "webdataset/*.tar", "parquet/*.parquet")
    sources = ", ".join(f"'s3://audio/corpus/{packing}'" for packing in packings)
    arguments = ["tokenize", "configs/demo.yaml", f"input.splits.train=[{sources}]", "output.uri=s3://audio/codes"]
    result = run_command(*arguments)
    assert result.returncode == 0, result.stderr
    committed = bucket.ls("audio/codes/_moss_tok/shards")
    assert len(committed) >= 4
    bucket.get("audio/codes/", str(tmp_path / "codes"), recursive=True)
    for secret in (server["AWS_SECRET_ACCESS_KEY"], server["AWS_ENDPOINT_URL"]):
        assert secret not in result.stdout + result.stderr
        for path in (tmp_path / "codes").rglob("*.*"):
            assert secret.encode() not in path.read_bytes()
            assert path.suffix != ".parquet" or secret not in str(pq.read_table(path).to_pylist())
    made = rows(tmp_path / "codes")
    assert len(made) + len(rows(tmp_path / "codes", "rejects")) == len(inventory)
    told: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        exec(textwrap.dedent(result.stdout.partition("To load it:")[2]), told)
    assert sorted(told["dataset"]["id"]) == sorted(row["id"] for row in made)

    before = {path: bucket.info(path)["ETag"] for path in bucket.find("audio/codes/data")}
    tokenize_in_process(demo_config(tmp_path / "codes", *arguments[2:]))
    bucket.invalidate_cache()
    assert {path: bucket.info(path)["ETag"] for path in bucket.find("audio/codes/data")} == before


def test_a_publish_is_seen_whole_and_a_missing_object_is_missing(bucket: s3fs.S3FileSystem):
    uri = "s3://audio/objects/large.bin"
    data = os.urandom(12 * 2**20)
    storage.publish(uri, data)
    assert storage.read_bytes(uri) == data
    found = storage.stat(uri)
    assert found is not None
    assert found.size == len(data)
    with storage.open_read(uri) as stream:
        stream.seek(5 * 2**20)
        assert stream.read(100) == data[5 * 2**20 : 5 * 2**20 + 100]
    assert storage.stat("s3://audio/objects/none.bin") is None
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("s3://audio/objects/none.bin")
    assert storage.list_names("s3://audio/nothing-here") == set()


def test_the_mark_of_a_folder_is_nothing_in_it(bucket: s3fs.S3FileSystem):
    """Consoles make folders by an empty object whose key ends with a slash: an output may begin there."""
    bucket.call_s3("put_object", Bucket="audio", Key="folder-of-a-console/", Body=b"")
    assert bucket.find("audio/folder-of-a-console") == ["audio/folder-of-a-console/"]
    for found in (storage.list_names, partial(storage.list_names, prefixes=[""]), storage.list_objects):
        assert not found("s3://audio/folder-of-a-console")


def test_a_bucket_that_one_may_not_read_is_an_error_that_names_it(bucket: s3fs.S3FileSystem, tmp_path: Path):
    environment = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "wrong"}
    before = {name: os.environ[name] for name in environment}
    os.environ.update(environment)
    try:
        sources = "input.splits.train=['s3://audio/corpus/webdataset/*.tar']"
        result = run_command("tokenize", "configs/demo.yaml", sources, f"output.uri={tmp_path / 'codes'}")
    finally:
        os.environ.update(before)
    assert result.returncode == 2
    assert "s3://audio/corpus/webdataset/*.tar" in result.stderr
    assert "credentials" in result.stderr
    assert "Traceback" not in result.stderr


def test_of_many_who_create_the_same_object_one_does(bucket: s3fs.S3FileSystem):
    uri = "s3://audio/objects/contended.bin"
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: storage.create(uri, str(number).encode()), range(8)))
    assert won.count(True) == 1
    assert storage.read_bytes(uri).decode() == str(won.index(True))


def test_an_output_in_a_bucket_is_verified_and_decoded_into_a_bucket(bucket: s3fs.S3FileSystem):
    document = {
        "input": {"splits": {"train": [str(CORPUS / "folder" / "prompts" / "it")]}, "clips_per_shard": 2},
        "output": {"uri": "s3://audio/verified"},
        "model": {"name": "cat-tiny"},
    }
    tokenize_in_process(with_absolute_uris(parse_config(document)))
    assert verify("s3://audio/verified", sample=2).differences == []
    output = read_output("s3://audio/verified")
    count, rows_of_one = select_rows(output, RowQuery(shards=(output.specs[0].shard_id,)), 4)
    files = SoundFiles("s3://audio/sounds", "flac", False, output.record)
    assert decode_rows(rows_of_one, files, lambda: load_decoder(output.record)).written == count == 2
    assert all(info.size > 1000 for info in storage.list_objects("s3://audio/sounds"))
    uri = output.layout.data(output.specs[1])
    data = bytearray(storage.read_bytes(uri))
    data[len(data) // 2] ^= 1
    storage.publish(uri, bytes(data))
    assert {difference.uri for difference in verify("s3://audio/verified", sample=0).differences} == {uri}
