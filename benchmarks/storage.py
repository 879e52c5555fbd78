"""Reading a large tar with `storage.open_read` and with the plain stream of s3fs, from an S3 server on a slow line.

python -m benchmarks.storage [--megabytes 64] [--delay 0.04] [--rate 20]

The line adds a delay to each request and limits each connection, as object stores do; the server is SeaweedFS on this
machine. Both read every member with tarfile, in turns, and must get the same bytes. CPU seconds are those of this
process, which contains the client and the line.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import s3fs

from pipeline import storage
from tests.proxy import proxy
from tests.seaweed import s3_clients, seaweed

URI = "s3://benchmark/large.tar"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64, help="size of the tar (default: %(default)s)")
    parser.add_argument("--delay", type=float, default=0.04, help="seconds before each answer (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="MB/s of one connection (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, seaweed(Path(folder)) as environment, s3_clients(environment):
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("benchmark")
        bucket.pipe_file("benchmark/large.tar", tar_of(arguments.megabytes))
        with proxy(environment["AWS_ENDPOINT_URL"]) as line:
            line.delay, line.bytes_per_second = arguments.delay, arguments.rate * 1e6
            with s3_clients({**environment, "AWS_ENDPOINT_URL": line.address}):
                compare(arguments.megabytes, arguments.rounds)


def compare(megabytes: int, rounds: int) -> None:
    ways: dict[str, Callable[[], BinaryIO]] = {
        "s3fs, plain stream": lambda: cast(BinaryIO, s3fs.S3FileSystem().open(URI, "rb")),
        "storage.open_read": lambda: storage.open_read(URI),
    }
    walls: dict[str, list[float]] = {name: [] for name in ways}
    digests = set()
    for _ in range(rounds):
        for name, opened in ways.items():
            began, cpu = time.perf_counter(), time.process_time()
            digests.add(read_members(opened))
            walls[name].append(time.perf_counter() - began)
            spent = time.process_time() - cpu
            print(f"{name:20} {megabytes / walls[name][-1]:7.1f} MB/s  {spent:5.2f} CPU s", flush=True)
    if len(digests) != 1:
        raise SystemExit("the two read different bytes")
    plain, ranged = (statistics.median(times) for times in walls.values())
    print(f"{plain / ranged:.1f} times as fast; at most {storage.bytes_ahead.peak / 2**20:.0f} MiB ahead of the reader")


def read_members(opened: Callable[[], BinaryIO]) -> str:
    digest = hashlib.sha256()
    with opened() as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            digest.update(cast(BinaryIO, tar.extractfile(member)).read())
    return digest.hexdigest()


def tar_of(megabytes: int) -> bytes:
    """A tar with members of half a megabyte, the size of a ten-second FLAC."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for number in range(2 * megabytes):
            member = tarfile.TarInfo(f"{number:06d}.flac")
            member.size = 500_000
            tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    return sink.getvalue()


if __name__ == "__main__":
    main()
