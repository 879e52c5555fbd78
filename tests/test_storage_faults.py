"""Object storage that misbehaves: a real S3 server behind a line that cuts, stalls, resets, loses and answers 5xx."""

from __future__ import annotations

import hashlib
import logging
import os
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3fs

from pipeline import storage
from pipeline.dataset.commit import OutputConflict, publish_shard
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import read_manifests
from pipeline.storage import NotAnObject, StorageError, client, location, retrying, streaming
from tests.proxy import Fault, Line, proxy
from tests.seaweed import KEYS, s3_clients, seaweed
from tests.shards import ATTEMPT, SPEC, shard_bytes
from tests.support import DEADLINE_SECONDS

LARGE = 48 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    with seaweed(tmp_path_factory.mktemp("weed")) as environment:
        yield environment


@pytest.fixture(scope="module")
def content(server: Mapping[str, str]) -> bytes:
    """What stands in s3://faults/large.bin."""
    data = os.urandom(2**20) * (LARGE // 2**20)
    with s3_clients(server):
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("faults")
        bucket.pipe_file("faults/large.bin", data)
    return data


@pytest.fixture
def line(
    request: pytest.FixtureRequest, server: Mapping[str, str], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Line]:
    """A line to the server. A connection counts as stalled after 2 seconds, but only in tests of that: an answer takes
    as long on a busy machine.
    """
    stalls = getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind") == "stall"
    monkeypatch.setattr(client, "STALL_SECONDS", 2 if stalls else int(DEADLINE_SECONDS))
    with proxy(server["AWS_ENDPOINT_URL"]) as line, s3_clients(server | {"AWS_ENDPOINT_URL": line.address}):
        yield line


@pytest.fixture
def direct(server: Mapping[str, str], content: bytes) -> Iterator[None]:
    """No line between."""
    with s3_clients(server):
        yield


@pytest.mark.parametrize("kind", ["cut", "stall", "reset", "500", "503", "429", "400"])
def test_a_read_that_fails_on_the_way_is_made_again_and_gives_every_byte(line: Line, content: bytes, kind: str) -> None:
    fault = Fault(kind, method="GET", path="large.bin", at=3, times=2)
    line.faults.append(fault)
    with storage.open_read("s3://faults/large.bin") as stream:
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(content).digest()
    assert fault.happened == 2


def test_an_answer_that_drips_is_given_up_though_it_never_stalls(
    line: Line, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "RANGE_SECONDS", 4.0)
    line.faults.append(Fault("drip", method="GET", path="large.bin", at=2))
    with storage.open_read("s3://faults/large.bin") as stream:
        assert stream.read(9 * 2**20) == content[: 9 * 2**20]
    assert line.faults[0].happened == 1


@pytest.mark.parametrize("kind", ["cut", "stall", "reset", "lost", "503", "429"])
def test_a_create_that_fails_on_the_way_leaves_the_whole_object_once(line: Line, kind: str) -> None:
    uri, data = f"s3://faults/created/{kind}.bin", os.urandom(3 * 2**20)
    assert storage.supports_conditional_create("s3://faults/created")
    fault = Fault(kind, method="PUT", path=kind)
    line.faults.append(fault)
    created = storage.create(uri, data)
    assert fault.happened == 1
    assert created or kind in ("lost", "stall")  # the answer came to nobody, and the second try found its own object
    assert storage.read_bytes(uri) == data
    assert not storage.create(uri, b"other")


def test_a_write_that_the_store_does_not_ask_for_is_made_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 clients send the body when the store says so, and wait for that without an end of their own."""
    assert storage.supports_conditional_create("s3://faults/silent")
    monkeypatch.setattr(location, "WRITE_SECONDS", 4.0)
    for write in (storage.create, storage.publish):
        line.faults[:] = [Fault("silent", method="PUT", path=f"silent/{write.__name__}")]
        write(f"s3://faults/silent/{write.__name__}", b"data")
        assert line.faults[0].happened == 1
        assert storage.read_bytes(f"s3://faults/silent/{write.__name__}") == b"data"


@pytest.mark.parametrize("kind", ["reset", "503", "stall"])
def test_listings_and_looks_are_tried_again_too(line: Line, kind: str) -> None:
    storage.publish("s3://faults/listed/a.bin", b"x")
    for ask in (
        lambda: storage.list_names("s3://faults/listed") == {"a.bin"},
        lambda: storage.stat("s3://faults/listed/a.bin") is not None,
        lambda: len(storage.list_objects("s3://faults/listed")) == 1,
        lambda: storage.read_ranges("s3://faults/listed/a.bin", [(0, 1)]) == [b"x"],
    ):
        line.faults[:] = [Fault(kind, path="listed")]
        assert ask()
        assert line.faults[0].happened == 1


@pytest.mark.parametrize(
    ("uri", "status", "error"),
    [
        ("s3://faults/large.bin", "403", StorageError),
        ("s3://faults/gone.bin", "", FileNotFoundError),
        ("s3://no-such-bucket/a.bin", "", FileNotFoundError),
        ("s3://faults/large.bin", "405", StorageError),
        ("s3://UPPER_case!/a.bin", "", StorageError),
    ],
)
def test_what_does_not_pass_is_asked_once(
    line: Line, uri: str, status: str, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    if status:
        line.faults.append(Fault(status, times=100))
    for ask in (storage.open_read, storage.read_bytes):
        before = len([path for _, path in line.requests if path.startswith("/faults/")])
        with pytest.raises(error):
            ask(uri)
        assert len([path for _, path in line.requests if path.startswith("/faults/")]) - before <= 2
    assert "trying again" not in caplog.text


def test_a_store_that_stays_away_is_given_up_in_time_and_named(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    before = retrying.RETRY_SECONDS
    monkeypatch.setattr(retrying, "RETRY_SECONDS", 1.0)
    line.faults.append(Fault("503", times=10_000))
    for ask in (storage.open_read, storage.read_bytes, storage.list_names, lambda uri: storage.publish(uri, b"x")):
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"s3://faults/large\.bin: cannot (read|list|write) it"):
            ask("s3://faults/large.bin")
        assert time.monotonic() - began < before


def test_a_stream_is_never_in_memory_as_a_whole_and_lets_go_when_it_is_closed(line: Line, content: bytes) -> None:
    storage.bytes_ahead.peak = storage.bytes_ahead.now
    digest = hashlib.sha256()
    with storage.open_read("s3://faults/large.bin") as stream:
        while piece := stream.read(300_000):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(content).digest()
    assert streaming.RANGE < storage.bytes_ahead.peak <= streaming.AHEAD + streaming.RANGE
    assert storage.bytes_ahead.now == 0
    with storage.open_read("s3://faults/large.bin") as stream:
        stream.read(10 * 2**20)
        assert storage.bytes_ahead.now > 0
    assert storage.bytes_ahead.now == 0


def test_a_reader_that_jumps_fetches_little_more_than_it_asks_for(line: Line, content: bytes) -> None:
    storage.bytes_ahead.peak = storage.bytes_ahead.now
    with storage.open_read("s3://faults/large.bin") as stream:
        for place in (LARGE - 8, 5, 30 * 2**20, 10 * 2**20 + 3, LARGE - 100):
            stream.seek(place)
            assert stream.read(8) == content[place : place + 8]
        assert stream.seek(0, os.SEEK_END) == LARGE
        assert stream.read(1) == b""
    assert storage.bytes_ahead.peak <= 2 * streaming.FIRST_RANGE


def test_an_object_that_is_replaced_while_it_is_read_is_an_error_and_no_mix(line: Line) -> None:
    uri = "s3://faults/replaced.bin"
    storage.publish(uri, b"a" * (4 * 2**20))
    with storage.open_read(uri) as stream:
        assert stream.read(100) == b"a" * 100
        storage.publish(uri, b"b" * (4 * 2**20))
        with pytest.raises(StorageError, match=r"replaced\.bin: changed while it was read"):
            stream.read()


def test_a_tar_of_real_size_is_read_member_by_member_over_a_bad_line(line: Line, tmp_path: Path) -> None:
    parts = {f"{number:03d}.bin": os.urandom(700_000 + number) for number in range(30)}
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in parts:
            tar.add(tmp_path / name, name)
    storage.publish("s3://faults/all.tar", (tmp_path / "all.tar").read_bytes())
    for at, kind in enumerate(("cut", "503", "reset"), 2):
        line.faults.append(Fault(kind, method="GET", path="all.tar", at=at))
    with storage.open_read("s3://faults/all.tar") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert read == parts


def test_an_object_of_many_parts_is_created_once_too(direct: None) -> None:
    data = bytes(101 * 2**20)
    assert storage.create("s3://faults/many-parts.bin", data)
    assert not storage.create("s3://faults/many-parts.bin", data[:1000])
    found = storage.stat("s3://faults/many-parts.bin")
    assert found is not None
    assert found.size == len(data)


def test_uploads_that_nobody_finishes_are_aborted_by_age_and_only_those_of_this_output(line: Line) -> None:
    bucket = s3fs.S3FileSystem()
    for key in ("out/data/train/a.parquet", "out/data/train/b.parquet", "out-2/data/train/a.parquet"):
        bucket.call_s3("create_multipart_upload", Bucket="faults", Key=key)

    def unfinished() -> list[str]:
        return sorted(
            upload["Key"] for upload in bucket.call_s3("list_multipart_uploads", Bucket="faults").get("Uploads", [])
        )

    assert storage.remove_stale("s3://faults/out") == 0  # they are young
    assert storage.stale.abort_stale_uploads("s3://faults/out", older_than=-60) == 2
    assert unfinished() == ["out-2/data/train/a.parquet"]


def test_a_shard_that_comes_twice_or_late_is_committed_once(line: Line) -> None:
    """Eight workers that were given the same shard, of two versions of the libraries; and one that wakes up after."""
    layout = Layout("s3://faults/twice")
    versions = [shard_bytes(versions={"torch": "2.10"}), shard_bytes(versions={"torch": "2.11"})]
    with ThreadPoolExecutor(8) as pool:
        manifests = list(pool.map(lambda number: publish_shard(layout, SPEC, *versions[number % 2], ATTEMPT), range(8)))
    (committed,) = read_manifests(layout, {SPEC.shard_id})
    assert manifests == [committed] * 8
    data = storage.read_bytes(layout.data(SPEC))
    assert hashlib.sha256(data).hexdigest() == committed.sha256
    for late in versions:
        assert publish_shard(layout, SPEC, *late, ATTEMPT) == committed
    assert storage.read_bytes(layout.data(SPEC)) == data
    assert storage.list_names("s3://faults/twice/data/train") == {f"{SPEC.shard_id}.parquet"}
    with pytest.raises(OutputConflict):
        publish_shard(layout, SPEC, *shard_bytes(fingerprint="other"), ATTEMPT)


def test_an_object_tells_what_it_is_without_being_read(line: Line) -> None:
    layout = Layout("s3://faults/labels")
    manifest = publish_shard(layout, SPEC, *shard_bytes(), ATTEMPT)
    labels = s3fs.S3FileSystem().metadata(layout.data(SPEC))
    assert labels == {"fingerprint": "f1", "rows": "20", "sha256": manifest.sha256}


def test_secrets_are_in_no_message(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="pipeline")
    line.faults.append(Fault("503", times=2))
    line.faults.append(Fault("403", at=4))
    messages = []
    for _ in range(2):
        try:
            storage.read_bytes("s3://faults/large.bin", 100)
        except (StorageError, ValueError) as error:
            messages.append(str(error))
    for uri in ("s3://AKIAEXAMPLE:hushhush@faults/a.bin", "https://user:hushhush@127.0.0.1/a.bin"):
        with pytest.raises(NotAnObject, match="with a password, a signature or a token") as caught:
            storage.read_bytes(uri)
        messages.append(str(caught.value))
    assert len(messages) == 4
    for secret in ("hushhush", KEYS["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in "".join(messages) + caplog.text
