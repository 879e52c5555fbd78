"""Manifests: each record becomes a clip with its fields or a reject, and none can make the reader do harm."""

from __future__ import annotations

import csv
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.input_config import InputConfig
from pipeline.items import Description, RawClip, Reject
from pipeline.steps.plan import plan_shards
from pipeline.steps.read import read_shard
from pipeline.storage import StorageError

ReadAll = Callable[..., Any]


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    """A manifest beside two small files, a.wav and sub/b.wav."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.wav").write_bytes(b"data of a")
    (tmp_path / "sub" / "b.wav").write_bytes(b"data of b")

    def write(*lines: Any) -> Path:
        path = tmp_path / "manifest.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("clips_per_shard", [1, 7, 1000])
def test_each_line_of_the_corpus_comes_out_once_with_its_text(
    corpus: Path, inventory: list[dict[str, Any]], read_all: ReadAll, clips_per_shard: int
) -> None:
    path = corpus / "folder" / "manifest.jsonl"
    items = []
    config = InputConfig(splits={"train": (str(path),)}, clips_per_shard=clips_per_shard)
    for spec in plan_shards(config):
        items += read_shard(spec, config)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [item.origin.key for item in items] == [line["audio"] for line in lines]
    assert sorted(item.origin.key for item in items) == sorted(
        entry["key"] for entry in inventory if entry["packing"] == "folder"
    )
    for item, line in zip(items, lines, strict=True):
        assert isinstance(item, RawClip)
        assert item.origin.source == str(corpus / "folder" / line.pop("audio"))
        assert item.data == Path(item.origin.source).read_bytes()
        assert item.description.text == line.pop("text", None)
        assert item.description.language == line.pop("language", None)
        assert item.description.speaker_id == line.pop("speaker", None)
        assert item.description.labels == (tuple(line.pop("labels")) if "labels" in line else None)
        assert item.description.metadata == line


def test_paths_are_relative_absolute_or_uris(manifest: Callable[..., Path], tmp_path: Path, read_all: ReadAll) -> None:
    remote = f"memory://{uuid.uuid4().hex}/c.wav"
    storage.publish(remote, b"data of c")
    paths = ["a.wav", "sub/b.wav", "./sub/../a.wav", f"{tmp_path}/sub/b.wav", f"file://{tmp_path}/a.wav", remote]
    items = read_all(manifest(*({"audio": path} for path in paths)), allow="memory://")
    assert [item.data for item in items] == [f"data of {name}".encode() for name in "ababac"]
    assert [item.origin.key for item in items] == paths


def test_a_manifest_in_an_object_store_names_files_beside_it(read_all: ReadAll) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    storage.publish(f"{root}/clips/a.wav", b"data")
    storage.publish(f"{root}/manifest.csv", b"path,text\nclips/a.wav,hello\n")
    (item,) = read_all(f"{root}/manifest.csv")
    assert (item.data, item.description.text, item.description.metadata) == (b"data", "hello", {})
    assert item.origin.source.endswith("/clips/a.wav")


@pytest.mark.parametrize("column", ["audio", "audio_filepath", "audio_path", "path", "file"])
def test_usual_names_of_the_audio_column_are_known(
    manifest: Callable[..., Path], read_all: ReadAll, column: str
) -> None:
    (item,) = read_all(manifest({column: "a.wav", "duration": 1.5, "text": "hi"}))
    assert (item.data, item.description.text, item.description.metadata) == (b"data of a", "hi", {"duration": 1.5})


def test_configured_columns_win(manifest: Callable[..., Path], read_all: ReadAll) -> None:
    line = {"audio": "x", "wave": "a.wav", "sentence": "hi", "text": "no"}
    (item,) = read_all(manifest(line), audio_column="wave", text_column="sentence")
    assert (item.data, item.description.text, item.description.metadata) == (
        b"data of a",
        "hi",
        {"audio": "x", "text": "no"},
    )


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        ("{not json", "bad_record", "not a line of JSON"),
        ("[" * 100_000, "bad_record", "not a line of JSON"),
        ('"a.wav"', "bad_record", "expected a JSON object, found str"),
        ({}, "bad_record", "the fields are none, expected one of audio, audio_filepath"),
        ({"sound": "a.wav"}, "bad_record", "the fields are sound"),
        ({"audio": None}, "bad_record", "audio is of type NoneType"),
        ({"audio": 7}, "bad_record", "audio is of type int"),
        ({"audio": {"path": "a.wav"}}, "bad_record", "audio is of type dict"),
        ({"audio": ""}, "bad_record", "audio is ''"),
        ({"audio": "reference://::https://host/refs.json"}, "bad_record", "not the path or URI of one file"),
        ({"audio": "simplecache::file:///etc/hostname"}, "bad_record", "not the path or URI of one file"),
        ({"audio": "gone.wav"}, "missing", "not there"),
        ({"audio": "../../../../../../../../gone.wav"}, "not_allowed", "input.allow"),
        ({"audio": "a.wav/below.wav"}, "missing", "Not a directory"),
        ({"audio": "sub"}, "missing", "directory"),
        ({"audio": "."}, "missing", "directory"),
        ({"audio": "/dev/zero"}, "not_allowed", "such as /dev"),
        ({"audio": "fifo.wav"}, "not_a_file", "a device, a pipe or a socket"),
        ({"audio": "nul\0.wav"}, "missing", "null byte"),
        ({"audio": "lone\ud800.wav"}, "missing", "surrogates"),
        ({"audio": "n" * 5000}, "missing", "too long"),
        ({"audio": "nosuch://host/a.wav"}, "not_allowed", "nosuch://"),
        ({"audio": "large.wav"}, "too_many_bytes", "2000 bytes, and 1000 are allowed"),
    ],
)
def test_a_line_that_leads_nowhere_is_a_reject_and_its_neighbours_are_read(
    manifest: Callable[..., Path], tmp_path: Path, read_all: ReadAll, line: Any, reason: str, message: str
) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "large.wav").write_bytes(b"x" * 2000)
    items = read_all(manifest({"audio": "a.wav"}, line, {"audio": "sub/b.wav"}), max_clip_bytes=1000)
    assert [getattr(item, "data", None) for item in items] == [b"data of a", None, b"data of b"]
    assert isinstance(items[1], Reject)
    assert items[1].reason == reason
    assert message in items[1].message
    items[1].message.encode("utf-8")
    items[1].origin.key.encode("utf-8")
    items[1].origin.source.encode("utf-8")


def test_a_record_that_cannot_be_understood_is_named_by_its_place(
    manifest: Callable[..., Path], read_all: ReadAll
) -> None:
    path = manifest({"audio": "a.wav"}, "{broken")
    reject = read_all(path)[1]
    assert reject.origin.source == str(path)
    assert reject.origin.key == f"byte {path.read_bytes().index(b'{broken')}"


def test_metadata_of_any_depth_and_kind_is_kept_as_json(manifest: Callable[..., Path], read_all: ReadAll) -> None:
    line = '{"audio": "a.wav", "deep": ' + "[" * 500 + "]" * 500 + ', "n": NaN, "big": 1e999, "lone": "\\ud800"}'
    (item,) = read_all(manifest(line))
    assert isinstance(item, RawClip)
    json.dumps(item.description.metadata, allow_nan=False).encode("utf-8")
    assert (item.description.metadata["n"], item.description.metadata["big"], item.description.metadata["lone"]) == (
        "nan",
        "inf",
        "\ufffd",
    )


def test_the_same_file_named_twice_is_two_clips(manifest: Callable[..., Path], read_all: ReadAll) -> None:
    items = read_all(manifest({"audio": "a.wav", "text": "one"}, {"audio": "a.wav", "text": "two"}))
    assert [item.description.text for item in items] == ["one", "two"]


def test_tables_with_quotes_and_line_breaks_keep_their_fields(tmp_path: Path, read_all: ReadAll) -> None:
    (tmp_path / "a, b.wav").write_bytes(b"data")
    text = 'she said "no",\nand left'
    with open(tmp_path / "m.tsv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["path", "text", "lang"], ["a, b.wav", text, "en"], ["gone"]])
    first, second = read_all(tmp_path / "m.tsv")
    assert (first.data, first.description) == (b"data", Description(text=text, language="en"))
    assert second.reason == "missing"


def test_a_store_that_fails_is_not_the_clips_fault(
    manifest: Callable[..., Path], read_all: ReadAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uri: str, max_bytes: int, places: Any) -> bytes:
        raise StorageError(f"{uri}: cannot read it: timeout")

    monkeypatch.setattr(storage.reading, "read_bytes", fail)
    with pytest.raises(StorageError, match="timeout"):
        read_all(manifest({"audio": "a.wav"}))
