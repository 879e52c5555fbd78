"""Plain files: each becomes a clip or a reject, under its path."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.input_config import InputConfig
from pipeline.items import RawClip, Reject
from pipeline.steps.plan import plan_shards
from pipeline.steps.read import read_shard


def test_each_audio_file_of_the_corpus_comes_out_once(
    corpus: Path, inventory: list[dict[str, Any]], read_all: Callable[..., Any]
) -> None:
    items = read_all(corpus / "folder" / "**" / "*[!l]")  # all but manifest.jsonl
    expected = sorted(str(corpus / entry["source"]) for entry in inventory if entry["packing"] == "folder")
    assert [item.origin.source for item in items] == expected
    for item in items:
        assert isinstance(item, RawClip)
        assert item.data == Path(item.origin.source).read_bytes()
        assert item.origin.source.endswith(item.origin.key)
        assert (item.description.text, dict(item.description.metadata)) == (None, {})


def test_files_that_went_away_since_the_plan_or_are_too_large_or_empty_are_each_told(tmp_path: Path) -> None:
    for name, size in {"a.wav": 4, "b.wav": 4, "c.wav": 11, "d.wav": 0, "e.wav": 4}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    config = InputConfig(splits={"train": (str(tmp_path),)}, max_clip_bytes=10)
    (spec,) = plan_shards(config)
    (tmp_path / "b.wav").unlink()
    (tmp_path / "e.wav").unlink()
    items = list(read_shard(spec, config))
    assert [item.origin.index for item in items] == [0, 1, 2, 3, 4]
    assert [item.origin.key for item in items] == ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav"]
    assert [item.reason if isinstance(item, Reject) else item.data for item in items] == [
        b"xxxx",
        "missing",
        "too_many_bytes",
        b"",
        "missing",
    ]
    assert isinstance(items[2], Reject)
    assert items[2].message == "11 bytes, and 10 are allowed: see input.max_clip_bytes"


@pytest.mark.parametrize(
    "name", [b"latin-\xe9.wav", "日本.wav".encode(), b"a::b.wav", b"with [marks]?*.wav", b"line\nbreak.wav"]
)
def test_any_name_that_a_disk_can_hold_is_read(tmp_path: Path, read_all: Callable[..., Any], name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"sub\xff", name)
    os.mkdir(os.path.dirname(path))
    Path(os.fsdecode(path)).write_bytes(b"data")
    (item,) = read_all(tmp_path)
    assert isinstance(item, RawClip)
    assert item.data == b"data"
    assert item.origin.key == name.decode("utf-8", "replace")
    item.origin.source.encode("utf-8")


def test_links_are_read_through_where_they_may_lead_and_dangling_ones_are_missed_by_name(
    tmp_path: Path, read_all: Callable[..., Any]
) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0f3c").write_bytes(b"data")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.wav").symlink_to("../blobs/0f3c")
    (tmp_path / "files" / "b.wav").symlink_to("../blobs/gone")
    (tmp_path / "files" / "c.wav").symlink_to("c.wav")
    (tmp_path / "files" / "d.wav").symlink_to("sub/e.wav")
    (tmp_path / "files" / "sub").mkdir()
    (tmp_path / "files" / "sub" / "e.wav").write_bytes(b"within")
    first, gone, circle, inner, _ = read_all(tmp_path / "files", allow=str(tmp_path / "blobs"))
    assert (first.data, inner.data) == (b"data", b"within")
    assert gone.reason == circle.reason == "missing"
    first, gone, circle, inner, _ = read_all(tmp_path / "files")
    assert (first.reason, gone.reason, circle.reason, inner.data) == (
        "not_allowed",
        "not_allowed",
        "missing",
        b"within",
    )
    assert f"such as {tmp_path}/files" in first.message
    (named,) = read_all(tmp_path / "files" / "a.wav")
    assert named.data == b"data"


def test_what_is_no_file_is_a_reject_and_is_not_opened(tmp_path: Path, read_all: Callable[..., Any]) -> None:
    os.mkfifo(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"data")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "c.wav"))
        (tmp_path / "d.wav").symlink_to("/dev/zero")
        fifo, sound, socket_file, device = read_all(tmp_path, allow="/dev")
    assert sound.data == b"data"
    assert {item.reason for item in (fifo, socket_file, device)} == {"not_a_file"}
    assert "never opened" in fifo.message


@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.arrow", "a.jsonl"])
def test_an_object_that_is_a_pipe_or_a_link_to_elsewhere_is_a_reject_of_its_own(
    tmp_path: Path, read_all: Callable[..., Any], name: str
) -> None:
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / name)
    (item,) = read_all(tmp_path / "pipes")
    assert (item.reason, item.origin.source) == ("not_a_file", f"{tmp_path}/pipes/{name}")
    (tmp_path / "links").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"secret")
    (tmp_path / "links" / name).symlink_to("../elsewhere")
    (item,) = read_all(tmp_path / "links")
    assert item.reason == "not_allowed"
