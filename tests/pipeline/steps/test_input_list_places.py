"""Where an input list may point, what becomes of secrets in it, and of stores that refuse or do not answer."""

from __future__ import annotations

import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.config import PrepareConfig, parse_config
from pipeline.dataset.opening import with_absolute_uris
from pipeline.input_config import InputConfig
from pipeline.items import RawClip, Reject
from pipeline.steps.plan import PlanError, plan_shards
from pipeline.steps.prepare import Target, prepare_clip
from pipeline.storage import AccessRefused, StorageError, StoreUnavailable
from pipeline.yaml_config import ConfigError
from tests.support import rows, tokenize_in_process
from tests.web import Website, serve

ReadAll = Callable[..., Any]


@pytest.fixture
def site() -> Iterator[Website]:
    with serve(a_wav=b"data of a") as site:
        yield site


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    """An input list of these paths, beside a.wav."""
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "a.wav").write_bytes(b"data of a")

    def write(*paths: str) -> Path:
        path = tmp_path / "list" / "list.jsonl"
        path.write_text("".join(json.dumps({"audio": path, "other": path}) + "\n" for path in paths))
        return path

    return write


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.retrying, "RETRY_SECONDS", 0.0)


@pytest.fixture
def silent_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def outcomes(items: list[Any]) -> list[str]:
    return [item.reason if isinstance(item, Reject) else "read" for item in items]


def test_a_list_points_beside_itself_and_no_further(tmp_path: Path, listed: Any, read_all: ReadAll) -> None:
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (tmp_path / "list" / "out.wav").symlink_to("../secret.wav")
    (tmp_path / "list" / "sub").mkdir()
    (tmp_path / "list" / "in.wav").symlink_to("a.wav")
    outside = [
        "../secret.wav",
        f"{tmp_path}/secret.wav",
        "sub/../../secret.wav",
        f"file://{tmp_path}/secret.wav",
        "out.wav",
    ]
    inside = ["a.wav", f"{tmp_path}/list/a.wav", "in.wav"]
    path = listed(*outside, *inside)
    assert outcomes(read_all(path)) == len(outside) * ["not_allowed"] + len(inside) * ["read"]
    assert outcomes(read_all(path, allow=str(tmp_path))) == (len(outside) + len(inside)) * ["read"]
    assert outcomes(read_all(path, allow=f"{tmp_path}/sec")) == len(outside) * ["not_allowed"] + len(inside) * ["read"]
    assert f"input.allow names: add a folder above it there, such as {tmp_path}" in read_all(path)[1].message


def test_a_list_reaches_the_kinds_of_storage_that_the_inputs_name_or_that_are_allowed(
    site: Website, listed: Any, read_all: ReadAll
) -> None:
    path = listed(f"{site.address}/a.wav", "a.wav")
    assert outcomes(read_all(path)) == ["not_allowed", "read"]
    assert site.asked == []
    for allow in ("http://", site.address, f"{site.address}/", f"{site.address}/a.wav"):
        assert outcomes(read_all(path, allow=allow)) == ["read", "read"]
    for allow in ("https://", f"{site.address}/b", f"{site.address}0", "http://127.0.0.1.evil.org"):
        assert outcomes(read_all(path, allow=allow)) == ["not_allowed", "read"]
    remote = "memory://places/list.jsonl"
    storage.publish("memory://places/x/a.wav", b"remote")
    storage.publish(
        remote, json.dumps({"audio": "memory://places/x/a.wav"}).encode() + b"\n" + b'{"audio": "/etc/hostname"}'
    )
    assert outcomes(read_all(remote)) == ["read", "not_allowed"]


def test_no_redirect_leads_to_another_host(site: Website, listed: Any, read_all: ReadAll) -> None:
    with serve(secret_wav=b"secret") as other:
        site.pages |= {
            "/away.wav": f"{other.address}/secret.wav",
            "/here.wav": "/a.wav",
            "/twice.wav": "/away.wav",
            "/file.wav": "file:///etc/hostname",
        }
        path = listed(*(f"{site.address}/{name}.wav" for name in ("away", "here", "twice", "file")))
        items = read_all(path, allow=site.address)
        assert outcomes(items) == ["not_allowed", "read", "not_allowed", "not_allowed"]
        assert "sends the client on" in items[0].message
        assert other.asked == []
        assert outcomes(read_all(path, allow=[site.address, other.address]))[:3] == ["read", "read", "read"]


@pytest.mark.parametrize("status", [401, 403, 407, 451])
def test_a_server_that_refuses_is_an_error_of_the_run(
    site: Website, listed: Any, read_all: ReadAll, status: int
) -> None:
    site.pages["/no.wav"] = status
    with pytest.raises(AccessRefused, match=rf"not allowed to read it \(HTTP {status}\)"):
        read_all(listed(f"{site.address}/a.wav", f"{site.address}/no.wav"), allow="http://")


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "missing"), (410, "missing"), (400, "unreachable"), (418, "unreachable")]
)
def test_what_a_server_does_not_have_is_missing_and_what_it_cannot_say_is_out_of_reach(
    site: Website, listed: Any, read_all: ReadAll, status: int, reason: str
) -> None:
    site.pages["/no.wav"] = status
    assert outcomes(read_all(listed(f"{site.address}/no.wav", f"{site.address}/a.wav"), allow="http://")) == [
        reason,
        "read",
    ]


def test_refusals_and_outages_are_seen_in_other_formats_too(
    site: Website, silent_port: int, impatient: None, tmp_path: Path
) -> None:
    site.pages["/no.tar"] = 403
    with pytest.raises(AccessRefused, match="HTTP 403"):
        storage.stat(f"{site.address}/no.tar")
    with pytest.raises(AccessRefused):
        storage.read_bytes(f"{site.address}/no.tar")
    assert storage.stat(f"{site.address}/gone.tar") is None
    for scheme in ("http", "ftp"):
        with pytest.raises(StoreUnavailable):
            storage.read_bytes(f"{scheme}://127.0.0.1:{silent_port}/a.tar", 10)


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_one_store_that_never_answers_costs_its_own_records_alone(
    silent_port: int, impatient: None, listed: Any, read_all: ReadAll, scheme: str
) -> None:
    paths = [f"{scheme}://127.0.0.1:{silent_port}/{number}.wav" for number in range(3)]
    items = read_all(listed("a.wav", *paths, "a.wav"), allow=f"{scheme}://")
    assert outcomes(items) == ["read", *3 * ["unreachable"], "read"]
    assert f"127.0.0.1:{silent_port}" in items[1].message


def test_a_kind_of_storage_without_its_plug_in_costs_its_own_records_alone(
    listed: Any, read_all: ReadAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = storage.location.url_to_fs

    def without(uri: str, **options: Any) -> Any:
        if uri.startswith("gs://"):
            raise ImportError("Please install gcsfs to access Google Storage")
        return connect(uri, **options)

    monkeypatch.setattr(storage.location, "url_to_fs", without)
    items = read_all(listed("gs://bucket/a.wav", "a.wav"), allow="gs://")
    assert outcomes(items) == ["unreachable", "read"]
    assert "install gcsfs" in items[0].message
    with pytest.raises(PlanError, match="install gcsfs"):
        read_all("gs://bucket/list.jsonl")


def test_many_records_out_of_reach_are_an_outage(
    silent_port: int, impatient: None, listed: Any, read_all: ReadAll
) -> None:
    paths = [f"http://127.0.0.1:{silent_port}/{number}.wav" for number in range(11)]
    with pytest.raises(StoreUnavailable):
        read_all(listed("a.wav", *paths), allow="http://")
    with pytest.raises(StoreUnavailable):
        read_all(listed(*paths[:2]), allow="http://")


def test_a_secret_of_a_record_reaches_the_server_and_nothing_else(
    site: Website, listed: Any, tmp_path: Path, corpus: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    site.pages["/a.wav"] = (corpus / "folder" / "librivox" / "0870.wav").read_bytes()
    site.pages["/busy.wav"] = 400
    signed = "X-Amz-Credential=hunter2&X-Amz-Signature=hunter2"
    uris = [
        f"http://ann:hunter2@{site.host}/a.wav",
        f"{site.address}/a.wav?{signed}&versionId=1",
        f"http://ann:hunter2@{site.host}/gone.wav?token=hunter2",
        f"http://ann:hunter2@{site.host}/busy.wav?token=hunter2",
        f"https://ann:hunter2@{site.host}.invalid/a.wav?sig=hunter2",
        "s3://ann:hunter2@bucket/a.wav",
    ]
    document = {
        "input": {"splits": {"train": str(listed(*uris))}, "allow": "http://"},
        "output": {"uri": str(tmp_path / "codes")},
        "model": {"name": "cat-tiny"},
    }
    tokenize_in_process(with_absolute_uris(parse_config(document)))
    assert "ann:hunter2" in site.users
    assert f"/a.wav?{signed}&versionId=1" in site.asked
    first, second = rows(tmp_path / "codes")
    assert (first["source"], second["source"]) == (f"{site.address}/a.wav", f"{site.address}/a.wav?versionId=1")
    assert (first["key"], second["key"]) == (first["source"], second["source"])
    rejects = rows(tmp_path / "codes", "rejects")
    assert [reject["reason"] for reject in rejects] == ["missing", "unreachable", "not_allowed", "not_allowed"]
    for path in (tmp_path / "codes").rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path
    assert "hunter2" not in json.dumps(rows(tmp_path / "codes") + rejects, default=str)
    assert "hunter2" not in capfd.readouterr().err
    ours = [record for record in caplog.records if record.name.startswith(("pipeline", "moss_tok"))]
    assert not any("hunter2" in record.getMessage() for record in ours)


def test_an_error_shows_no_secret_even_of_what_is_behind_it(site: Website, listed: Any, read_all: ReadAll) -> None:
    site.pages["/no.wav"] = 403
    secret = "hunter2"[::-1]  # the lines of this test are part of what is printed
    with pytest.raises(AccessRefused) as raised:
        read_all(listed(f"http://ann:{secret}@{site.host}/no.wav?sig={secret}"), allow="http://")
    assert secret not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "uri",
    ["https://ann:hunter2@host/list.jsonl", "https://host/a.tar?X-Amz-Signature=hunter2", "s3://k:hunter2@bucket/x"],
)
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    for section in ({"splits": {"train": uri}}, {"splits": {"train": "a.jsonl"}, "allow": uri}):
        with pytest.raises(ConfigError, match=r"input\..*password, a signature or a token") as raised:
            parse_config({"input": section, "output": {"uri": str(tmp_path)}, "model": {"name": "cat-tiny"}})
        assert "hunter2" not in str(raised.value)
    for ask in (storage.absolute, storage.read_bytes, storage.list_objects):
        with pytest.raises(StorageError, match="password, a signature or a token") as refused:
            ask(uri)
        assert "hunter2" not in str(refused.value)


def test_a_listing_that_gives_signed_addresses_is_not_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    info = storage.ObjectInfo("https://host/a.wav?sig=hunter2", 10, "1")
    monkeypatch.setattr(storage, "list_objects", lambda pattern: [info])
    with pytest.raises(PlanError, match="signature or token") as raised:
        plan_shards(InputConfig(splits={"train": ("https://host/",)}, format="files"))
    assert "hunter2" not in str(raised.value)


def test_no_message_shows_what_is_in_a_file(listed: Any, read_all: ReadAll, tmp_path: Path) -> None:
    target = Target(sample_rate=24_000, channels=1, samples_per_frame=1920)
    for start in (
        b"",
        b"caff\0\1\0\0",
        b"\0\0\0\x08ftyp",
        b"RIFF\xff\0\0\0WAVE",
        b"OggS",
        b"fLaC",
        b"ID3",
        b"\x1a\x45\xdf\xa3",
        b"FORM....AIFF",
    ):
        (tmp_path / "list" / "a.wav").write_bytes(start + b"hunter2:$6$hunter2:19000:0:99999:7:::\nhunter2" * 20)
        (raw,) = read_all(listed("a.wav"))
        assert isinstance(raw, RawClip)
        for item in prepare_clip(raw, PrepareConfig(), target):
            assert isinstance(item, Reject)
            assert "hunt" not in item.message
            assert "$6$" not in item.message
