"""From a bucket to a bucket, on a real S3 server: the bytes that a local export writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs

from pipeline.export.rows import ExportRow
from pipeline.export.tokens.files import read_documents
from tests.seaweed import s3_clients, seaweed


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Iterator[s3fs.S3FileSystem]:
    """A client, and a bucket `data` with the dataset under `codes`."""
    with seaweed(tmp_path_factory.mktemp("weed")) as environment, s3_clients(environment):
        client = s3fs.S3FileSystem()
        client.mkdir("data")
        client.put(f"{dataset}/", "data/codes/", recursive=True)
        yield client


@pytest.mark.parametrize(("to", "settings"), [("moss-tts", ["references.enabled=true"]), ("lhotse", ["asr.buckets=2"])])
def test_an_export_between_buckets_has_the_bytes_of_a_local_one(
    bucket: s3fs.S3FileSystem, export: Callable[..., Any], contents: Callable[..., Any], to: str, settings: list[str]
):
    local, report = export(to, *settings)
    _, remote = export(to, *settings, uri="s3://data/codes", out=f"s3://data/{to}")
    assert remote == report
    bucket.invalidate_cache()
    found = {path.removeprefix(f"data/{to}/"): bucket.cat(path) for path in bucket.find(f"data/{to}")}
    assert found == contents(local)
    _, again = export(to, *settings, uri="s3://data/codes", out=f"s3://data/{to}")
    assert again == report


def test_token_sequences_are_read_back_from_a_bucket(
    bucket: s3fs.S3FileSystem, export: Callable[..., Any], clips: dict[str, ExportRow]
):
    settings = ["tokens.template=['{audio}']", "tokens.storage=npy"]
    export("tokens", *settings, uri="s3://data/codes", out="s3://data/tokens")
    found = dict(read_documents("s3://data/tokens/train"))
    assert found.keys() == clips.keys()
    for clip_id, content in found.items():
        np.testing.assert_array_equal(content.codes, clips[clip_id].codes)
