"""Storage: whole or absent, listed completely, read in order, and every failure names its object."""

from __future__ import annotations

import errno
import gzip
import io
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from huggingface_hub import BucketFile, HfApi

from pipeline import storage
from pipeline.storage import DamagedObject, NotAnObject, ObjectTooLarge, StorageError
from tests.support import wait_for


@pytest.fixture
def bucket() -> Iterator[str]:
    """A folder of an object store that lives in memory."""
    yield f"memory://bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("memory").store.clear()


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_is_published_is_read_back_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "folder" / "object.bin")
    storage.publish(uri, b"first")
    storage.publish(uri, b"second, and longer")
    assert storage.read_bytes(uri) == b"second, and longer"
    assert names_in(tmp_path / "new" / "folder") == ["object.bin"]


def test_an_object_store_publishes_and_replaces_too(bucket: str) -> None:
    storage.publish(f"{bucket}/a/object.bin", b"first")
    storage.publish(f"{bucket}/a/object.bin", b"second")
    assert storage.read_bytes(f"{bucket}/a/object.bin") == b"second"
    assert storage.list_names(f"{bucket}/a") == {"object.bin"}


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_publication_that_fails_leaves_the_old_object_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    uri = str(tmp_path / "object.bin")
    storage.publish(uri, b"old")

    def disk_full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "write":
        monkeypatch.setattr("builtins.open", lambda *args, **options: FullDisk(args[0]))
    else:
        monkeypatch.setattr(os, step, disk_full)
    with pytest.raises(StorageError, match=r"object\.bin: cannot write it.*No space left"):
        storage.publish(uri, b"new")
    monkeypatch.undo()
    assert names_in(tmp_path) == ["object.bin"]
    assert storage.read_bytes(uri) == b"old"


class FullDisk(io.FileIO):
    def __init__(self, path: str) -> None:
        super().__init__(path, "xb")

    def write(self, data: object) -> int:
        super().write(b"the part that fitted")
        raise OSError(errno.ENOSPC, "No space left on device")


PUBLISH_FOR_EVER = """
import sys
from pipeline import storage
for round in range(1_000_000):
    storage.publish(sys.argv[1], bytes([round % 256]) * 20_000_000)
    print(round, flush=True)
"""


@pytest.mark.parametrize("rounds_before", [0, 1])
def test_a_process_killed_while_it_publishes_leaves_a_whole_object_or_none(tmp_path: Path, rounds_before: int) -> None:
    uri = tmp_path / "object.bin"
    process = subprocess.Popen([sys.executable, "-c", PUBLISH_FOR_EVER, str(uri)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(rounds_before):
        process.stdout.readline()
    wait_for(lambda: any(name.endswith(".tmp") for name in names_in(tmp_path)))  # in the middle of a publication
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if rounds_before or uri.exists():
        data = uri.read_bytes()
        assert len(data) == 20_000_000
        assert data.count(data[:1]) == len(data)
    assert [info.uri for info in storage.list_objects(str(tmp_path))] == [str(uri)] * uri.exists()


def test_a_folder_is_listed_recursively_and_sorted_with_sizes(tmp_path: Path) -> None:
    for name in (
        "b.wav",
        "sub/c.wav",
        "a.wav",
        "sub/deeper/ünï cödé 日本.wav",
        "with space.wav",
        "x::y.wav",
        "50%25#1?.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    infos = storage.list_objects(str(tmp_path))
    found = [info.uri.removeprefix(f"{tmp_path}/") for info in infos]
    assert found == sorted(found)
    assert len(found) == 7
    for info in infos:
        assert storage.read_bytes(info.uri, 100) == info.uri.removeprefix(f"{tmp_path}/").encode()
        assert info.size == len(storage.read_bytes(info.uri))
        with storage.open_read(info.uri) as stream:
            assert stream.read() == storage.read_bytes(info.uri)


@pytest.mark.parametrize("where", ["local", "memory"])
def test_files_globs_folders_and_nothing_are_listed_alike_everywhere(tmp_path: Path, bucket: str, where: str) -> None:
    root = str(tmp_path) if where == "local" else bucket
    for name in ("a.wav", "b.wav", "c.flac", "sub/d.wav"):
        storage.publish(f"{root}/{name}", b"x")

    def listed(pattern: str) -> list[str]:
        return [info.uri.rpartition(root.rpartition("/")[2] + "/")[2] for info in storage.list_objects(pattern)]

    assert listed(f"{root}/a.wav") == ["a.wav"]
    assert listed(f"{root}/*.wav") == ["a.wav", "b.wav"]
    assert listed(f"{root}/**/*.wav") == ["a.wav", "b.wav", "sub/d.wav"]
    assert listed(root) == listed(f"{root}/") == ["a.wav", "b.wav", "c.flac", "sub/d.wav"]
    assert listed(f"{root}/nothing") == listed(f"{root}/*.mp3") == []


def test_names_with_a_leading_dot_are_listed_only_when_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("a.parquet", ".a.parquet.0f3c.tmp", ".hidden.parquet"):
        (tmp_path / name).write_bytes(b"x")
    for pattern in (tmp_path, tmp_path / "*", tmp_path / "*.parquet"):
        assert [info.uri for info in storage.list_objects(str(pattern))] == [f"{tmp_path}/a.parquet"]
    assert len(storage.list_objects(f"{tmp_path}/.hidden.parquet")) == 1


def test_a_name_with_glob_marks_that_exists_is_that_file(tmp_path: Path) -> None:
    folder = tmp_path / "album [live]"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"x")
    assert len(storage.list_objects(str(folder))) == 1


def test_links_to_files_are_followed_and_links_to_folders_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "blob").write_bytes(b"12345")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "a.wav").symlink_to("../blob")
    (folder / "dangling.wav").symlink_to("../gone")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "fifo.wav")
    infos = storage.list_objects(str(folder))
    assert [(Path(info.uri).name, info.size) for info in infos] == [
        ("a.wav", 5),
        ("dangling.wav", 0),
        ("fifo.wav", 0),
    ]
    assert "loop: a link to a folder" in caplog.text
    before = infos[0].version
    (tmp_path / "blob").write_bytes(b"123456")
    assert storage.list_objects(str(folder))[0].version != before


def test_the_version_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))
    first = storage.stat(str(path))
    path.write_bytes(b"two")
    second = storage.stat(str(path))
    assert first is not None
    assert second is not None
    assert first.version != second.version
    assert storage.stat(f"{path}.gone") is None


def test_read_bytes_keeps_to_its_limit(tmp_path: Path, bucket: str) -> None:
    for uri in (str(tmp_path / "a.bin"), f"{bucket}/a.bin"):
        storage.publish(uri, b"12345")
        assert storage.read_bytes(uri, 5) == b"12345"
        with pytest.raises(ObjectTooLarge, match="5 bytes, and 4 are allowed"):
            storage.read_bytes(uri, 4)


def test_a_store_that_does_not_tell_sizes_is_read_up_to_the_limit(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    storage.publish(f"{bucket}/a.bin", b"12345")
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "info", lambda self, path, **options: {"name": path, "type": "file", "size": None})
    assert storage.read_bytes(f"{bucket}/a.bin", 5) == b"12345"
    with pytest.raises(ObjectTooLarge):
        storage.read_bytes(f"{bucket}/a.bin", 4)


@pytest.mark.parametrize(
    "name",
    ["", "file.wav/below", "n" * 300, "nul\0", "lone \ud800 surrogate", "loop", "fifo"],
    ids=["folder", "below-a-file", "long", "nul", "surrogate", "link-loop", "fifo"],
)
def test_an_address_that_can_be_no_file_says_so_and_does_not_block(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.wav").write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotAnObject):
        storage.read_bytes(f"{tmp_path}/{name}", 100)


@pytest.mark.parametrize("uri", ["nosuch://bucket/a.wav", "reference://a.wav"])
def test_an_unknown_kind_of_storage_is_named(uri: str) -> None:
    for action in (storage.read_bytes, storage.list_objects, storage.open_read, storage.stat, storage.absolute):
        with pytest.raises(StorageError, match="no such kind of storage"):
            action(uri)


def test_a_folder_is_not_opened_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path)):
        storage.open_read(str(tmp_path))


def test_missing_credentials_say_what_to_check(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError("403")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    with pytest.raises(StorageError, match="not allowed to write it: check the credentials"):
        storage.publish(f"{bucket}/a.bin", b"x")


def test_whatever_a_store_raises_while_it_is_read_is_a_storage_error_that_names_the_object(
    monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    class LibraryError(Exception):
        pass

    class Cut(io.BytesIO):
        def __init__(self, error: Exception) -> None:
            super().__init__(b"x" * 100)
            self.error = error

        def read(self, size: int | None = -1) -> bytes:
            raise self.error

    memory = type(fsspec.filesystem("memory"))
    for error in (
        ConnectionResetError("reset"),
        TimeoutError("stalled"),
        LibraryError("500"),
        FileNotFoundError("404"),
    ):
        monkeypatch.setattr(memory, "open", lambda self, path, mode, error=error: Cut(error))
        with storage.open_read(f"{bucket}/a.bin") as stream, pytest.raises(StorageError, match=r"a\.bin") as caught:
            stream.read()
        assert not isinstance(caught.value, NotAnObject)


def test_gzip_is_unpacked_and_seekable(tmp_path: Path) -> None:
    content = b"".join(b"%08d" % number for number in range(100_000))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(content))
    with storage.open_read(str(path)) as stream:
        assert stream.read(8) == b"00000000"
        stream.seek(8 * 99_999)
        assert stream.read() == b"00099999"
        stream.seek(80)
        assert stream.read(8) == b"00000010"


@pytest.mark.parametrize("damage", ["cut", "flipped", "not-gzip", "empty"])
def test_damaged_gzip_is_the_objects_fault_and_not_the_stores(tmp_path: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(os.urandom(100_000)))
    path = tmp_path / "a.gz"
    if damage == "cut":
        del packed[50_000:]
    elif damage == "flipped":
        packed[50_000] ^= 0xFF
    elif damage == "not-gzip":
        packed[:] = b"plain text" * 100
    else:
        del packed[:]
    path.write_bytes(bytes(packed))
    with storage.open_read(str(path)) as stream:
        if damage == "empty":
            assert stream.read() == b""
        else:
            with pytest.raises(DamagedObject, match="cannot be unpacked"):
                stream.read()


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """A web server that knows no ranges: it answers with the whole file, whatever part is asked for."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    handler = partial(Handler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_server_without_ranges_gives_whole_files(website: str, tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20)
    (tmp_path / "a.wav").write_bytes(data)
    with storage.open_read(f"{website}/a.wav") as stream:
        assert stream.read() == data
    assert storage.read_bytes(f"{website}/a.wav") == storage.read_bytes(f"{website}/a.wav", 3 * 2**20) == data
    with pytest.raises(ObjectTooLarge):
        storage.read_bytes(f"{website}/a.wav", 2 * 2**20)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{website}/gone.wav", 100)
    assert storage.stat(f"{website}/gone.wav") is None


def test_read_ahead_keeps_order_and_gives_reasons_in_place(bucket: str) -> None:
    uris: list[str | None] = [f"{bucket}/{number}" for number in range(40)]
    for number, uri in enumerate(uris):
        storage.publish(str(uri), b"%d" % number)
    uris[3] = f"{bucket}/gone"
    uris[5] = None
    uris[7] = "nosuch://x"
    storage.publish(f"{bucket}/9", b"too large")
    results = list(storage.read_ahead(uris, max_bytes=5))
    assert isinstance(results[3], FileNotFoundError)
    assert results[5] is None
    assert isinstance(results[7], NotAnObject)
    assert isinstance(results[9], ObjectTooLarge)
    rest = [number for number in range(40) if number not in (3, 5, 7, 9)]
    assert [results[number] for number in rest] == [b"%d" % number for number in rest]


@pytest.mark.parametrize(("budget", "ahead"), [(2**30, storage.reading.READ_AHEAD), (12, 4), (1, 1)])
def test_read_ahead_holds_few_objects_however_many_there_are_and_fewer_of_large_ones(
    monkeypatch: pytest.MonkeyPatch, budget: int, ahead: int
) -> None:
    monkeypatch.setattr(storage.reading, "AHEAD_BYTES", budget)
    started = 0
    lock = threading.Lock()

    def read(uri: str, max_bytes: int, places: object) -> bytes:
        nonlocal started
        with lock:
            started += 1
        return uri.encode()

    monkeypatch.setattr(storage.reading, "read_bytes", read)
    taken = 0
    for data in storage.read_ahead((f"{number:03}" for number in range(200)), 10):
        assert data == f"{taken:03}".encode()
        taken += 1
        assert started <= taken + ahead
    assert taken == 200


def test_read_ahead_raises_what_is_the_stores_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uri: str, max_bytes: int, places: object) -> bytes:
        raise StorageError(f"{uri}: cannot read it: timeout")

    monkeypatch.setattr(storage.reading, "read_bytes", fail)
    with pytest.raises(StorageError, match="timeout"):
        list(storage.read_ahead(["memory://a"], 10))


def test_remove_is_content_with_nothing_to_remove(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    storage.publish(uri, b"x")
    storage.remove(uri)
    storage.remove(uri)
    assert storage.list_names(str(tmp_path)) == set()
    assert storage.list_names(f"{tmp_path}/gone") == set()


def test_addresses_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("out/demo/") == f"{tmp_path}/out/demo"
    assert storage.absolute("memory://bucket/out/") == "memory:///bucket/out"
    assert storage.is_local("out")
    assert storage.is_local(f"file://{tmp_path}")
    assert not storage.is_local("memory://bucket")


@pytest.mark.parametrize("place", ["local", "memory"])
def test_an_object_is_created_once_and_the_first_stays(tmp_path: Path, place: str) -> None:
    uri = str(tmp_path / "folder" / "a.bin") if place == "local" else "memory://create/a.bin"
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert storage.list_names(uri.rpartition("/")[0]) == {"a.bin"}


def test_of_many_who_create_the_same_object_one_does(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.bin")
    create = "print(storage.create(sys.argv[1], sys.argv[2].encode()))"
    code = f"import sys; from pipeline import storage; sys.stdin.read(1); {create}"
    pipe = subprocess.PIPE
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", code, uri, str(number)],
            stdin=pipe,
            stdout=pipe,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for number in range(4)
    ]
    answers = [contender.communicate("\n")[0].strip() for contender in contenders]
    assert sorted(answers) == ["False", "False", "False", "True"]
    assert storage.read_bytes(uri).decode() == str(answers.index("True"))


def test_hidden_folders_are_left_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("a.wav", ".hidden/b.wav", "c/.checkpoints/d.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"sound")
    assert [info.uri for info in storage.list_objects(str(tmp_path))] == [str(tmp_path / "a.wav")]
    (asked_for,) = storage.list_objects(str(tmp_path / ".hidden"))
    assert asked_for.uri == str(tmp_path / ".hidden" / "b.wav")


def test_a_client_that_looks_before_it_writes_has_no_condition() -> None:
    """fsspec's own `pipe_file` refuses the second of two creates, one after the other, and not of two at once."""
    memory = type(fsspec.filesystem("memory"))

    class Plain(memory):  # type: ignore[misc, valid-type]
        protocol = "plain"
        store: ClassVar[dict[str, object]] = {}
        pipe_file = fsspec.AbstractFileSystem.pipe_file

    fsspec.register_implementation("plain", Plain, clobber=True)
    assert not storage.supports_conditional_create("plain://bucket/folder")
    assert storage.create("plain://bucket/folder/a", b"1")
    assert not storage.create("plain://bucket/folder/a", b"2")
    assert storage.read_bytes("plain://bucket/folder/a") == b"1"


def test_a_bucket_of_the_hub_shows_what_was_written_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client keeps listings, and answers from them whether an object is there."""
    held = ["codes/one"]

    def tree(api: HfApi, bucket_id: str, prefix: str | None = None, **options: object) -> list[BucketFile]:
        found = [name for name in held if name.startswith(prefix or "")]
        return [BucketFile(type="file", path=name, size=1, xetHash=name) for name in found]

    monkeypatch.setattr(HfApi, "bucket_info", lambda api, bucket_id, **options: None)
    monkeypatch.setattr(HfApi, "list_bucket_tree", tree)
    assert storage.list_names("hf://buckets/me/audio/codes") == {"one"}
    assert storage.stat("hf://buckets/me/audio/codes/two") is None
    held.append("codes/two")
    assert storage.stat("hf://buckets/me/audio/codes/two") is not None
    assert not storage.supports_conditional_create("hf://buckets/me/audio/codes")
