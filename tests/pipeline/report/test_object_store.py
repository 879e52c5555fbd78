"""The report of an output in a bucket, on a real S3 server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import s3fs

from pipeline import storage
from tests.seaweed import s3_clients, seaweed


def test_an_output_in_a_bucket_makes_the_page_that_a_local_one_makes(
    root: Path, page_of: Callable[..., str], tmp_path: Path
):
    with seaweed(tmp_path) as environment, s3_clients(environment):
        client = s3fs.S3FileSystem(skip_instance_cache=True)
        client.mkdir("report")
        client.put(f"{root}/", "report/codes/", recursive=True)
        page = page_of("s3://report/codes")
        assert page == page_of(root).replace(str(root), "s3://report/codes")
        assert environment["AWS_SECRET_ACCESS_KEY"] not in page
        storage.publish("s3://report/page.html", page.encode())
        client.invalidate_cache()
        assert client.cat("report/page.html").decode() == page
