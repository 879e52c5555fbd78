"""WebDataset tars: samples become clips, and no tar can harm, stop or mislead the reader."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.input_config import InputConfig
from pipeline.items import RawClip, Reject, ShardSpec
from pipeline.steps.read import webdataset
from pipeline.steps.read.webdataset import read_webdataset
from pipeline.steps.reject_reasons import READ_REASONS

ReadAll = Callable[..., Any]
Member = tuple[str, bytes]

TWO_SAMPLES: list[Member] = [
    ("a.flac", b"audio of a" * 200),
    ("a.json", b'{"speaker": 1}'),
    ("a.txt", b"text of a"),
    ("b.flac", b"audio of b" * 200),
    ("b.txt", b"text of b"),
]


def tar_of(members: Iterable[Member | tarfile.TarInfo], end: bool = True, **options: Any) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
        stop = tar.offset
    return sink.getvalue() if end else sink.getvalue()[:stop]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def rewritten_header(name: bytes, size_field: bytes, kind: bytes = b"0") -> bytes:
    """A header whose checksum is right and whose size is whatever it is."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = size_field
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.fixture
def read_tar(tmp_path: Path, read_all: ReadAll) -> ReadAll:
    """The items of a tar of these bytes."""

    def read(data: bytes, name: str = "shard.tar", **options: Any) -> Any:
        (tmp_path / name).write_bytes(data)
        return read_all(tmp_path / name, **options)

    return read


def outcomes(items: Iterable[Any]) -> list[tuple[str, str]]:
    return [(item.origin.key, item.reason if isinstance(item, Reject) else "clip") for item in items]


def test_each_sample_of_the_corpus_comes_out_once_with_its_text_and_metadata(
    corpus: Path, inventory: list[dict[str, Any]], read_all: ReadAll
) -> None:
    items = read_all(corpus / "webdataset")
    entries = {entry["key"]: entry for entry in inventory if entry["packing"] == "webdataset"}
    assert sorted(item.origin.key for item in items) == sorted(entries)
    for item in items:
        entry = entries[item.origin.key]
        assert isinstance(item, RawClip)
        assert item.origin.source == str(corpus / entry["source"])
        assert (item.description.text is not None) == entry["has_text"]
        assert item.description.language == entry["language"]
        with tarfile.open(item.origin.source) as tar:
            member = tar.extractfile(item.name)
            assert member is not None
            assert item.data == member.read()


def test_members_with_one_key_are_one_sample(read_tar: ReadAll) -> None:
    first, second = read_tar(tar_of(TWO_SAMPLES))
    assert (first.origin.key, first.data, first.description.text, first.description.metadata) == (
        "a",
        b"audio of a" * 200,
        "text of a",
        {},
    )
    assert first.description.speaker_id == "1"
    assert (second.description.text, second.description.metadata) == ("text of b", {})


def test_a_gzipped_tar_gives_the_same(read_tar: ReadAll) -> None:
    plain = read_tar(tar_of(TWO_SAMPLES))
    packed = read_tar(gzip.compress(tar_of(TWO_SAMPLES)), "shard.tar.gz")
    assert [(item.data, item.description.text) for item in packed] == [
        (item.data, item.description.text) for item in plain
    ]


def test_the_text_of_json_is_used_where_there_is_no_txt(read_tar: ReadAll) -> None:
    document = b'{"text": "of json", "sentence": "other"}'
    (item,) = read_tar(tar_of([("a.wav", b"x"), ("a.json", document)]))
    assert (item.description.text, item.description.metadata) == ("of json", {"sentence": "other"})
    (item,) = read_tar(tar_of([("a.json", document), ("a.txt", b"of txt\n"), ("a.wav", b"x")]))
    assert (item.description.text, item.description.metadata) == ("of txt", {"sentence": "other"})
    (item,) = read_tar(tar_of([("a.wav", b"x"), ("a.json", document)]), text_column="sentence")
    assert (item.description.text, item.description.metadata) == ("other", {"text": "of json"})


def test_folders_belong_to_the_key_and_endings_begin_at_the_first_dot(read_tar: ReadAll) -> None:
    members = [("d.1/a.wav", b"1"), ("d.2/a.wav", b"2"), ("d.2/a.json", b"{}"), ("c.x.FLAC", b"3")]
    items = read_tar(tar_of([special("d.1", tarfile.DIRTYPE), *members]))
    assert outcomes(items) == [("d.1/a", "clip"), ("d.2/a", "clip"), ("c", "clip")]


def test_several_audio_members_are_several_clips_that_share_the_rest(read_tar: ReadAll) -> None:
    items = read_tar(tar_of([("a.mix.wav", b"1"), ("a.vocals.wav", b"2"), ("a.txt", b"text"), ("b.wav", b"3")]))
    assert [(item.origin.key, item.data, item.description.text) for item in items] == [
        ("a.mix.wav", b"1", "text"),
        ("a.vocals.wav", b"2", "text"),
        ("b", b"3", None),
    ]


def test_duplicate_keys_are_clips_of_their_own_neighbouring_or_not(read_tar: ReadAll) -> None:
    a, b = [("a.wav", b"1"), ("a.txt", b"one")], [("b.wav", b"2")]
    again = [("a.wav", b"3"), ("a.txt", b"two")]
    for members in (a + again + b, a + b + again):
        items = read_tar(tar_of(members))
        assert sorted((item.origin.key, item.data, item.description.text) for item in items) == [
            ("a", b"1", "one"),
            ("a", b"3", "two"),
            ("b", b"2", None),
        ]


def test_samples_without_audio_are_rejects(read_tar: ReadAll) -> None:
    items = read_tar(tar_of([("a.json", b"{}"), ("b.wav", b"x"), ("c.cls", b"1"), ("README.md", b"x")]))
    assert outcomes(items) == [("a", "no_audio"), ("b", "clip"), ("c", "no_audio"), ("README", "no_audio")]
    assert "it holds json" in items[0].message
    (unnamed,) = read_tar(tar_of([("clip", b"audio")]))
    assert "it holds a file whose name has no ending" in unnamed.message


def test_links_and_devices_are_never_followed(read_tar: ReadAll) -> None:
    members = [
        ("a.wav", b"x"),
        special("hard.wav", tarfile.LNKTYPE, "a.wav"),
        special("soft.wav", tarfile.SYMTYPE, "/etc/passwd"),
        special("fifo.wav", tarfile.FIFOTYPE),
        special("dev.wav", tarfile.CHRTYPE),
        special("b.json", tarfile.SYMTYPE, "a.wav"),
        ("b.wav", b"y"),
    ]
    items = read_tar(tar_of(members))
    assert outcomes(items) == [
        ("a", "clip"),
        ("hard", "not_a_file"),
        ("soft", "not_a_file"),
        ("fifo", "not_a_file"),
        ("dev", "not_a_file"),
        ("b", "clip"),
    ]
    assert items[-1].description.metadata == {}


def test_names_that_point_elsewhere_are_only_names(read_tar: ReadAll, tmp_path: Path) -> None:
    names = ["../../escape.wav", "/absolute.wav", "a/../../b.wav", "C:\\c.wav", "nothing/.wav"]
    items = read_tar(tar_of([(name, b"x") for name in names]))
    assert outcomes(items) == [(name.removesuffix(".wav"), "clip") for name in names]
    assert os.listdir(tmp_path) == ["shard.tar"]


def test_names_that_are_not_utf8_can_be_written(read_tar: ReadAll) -> None:
    members = [(os.fsdecode(b"caf\xe9.wav"), b"x"), (os.fsdecode(b"caf\xe9.f\xefle"), b"x")]
    for style in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        (item,) = read_tar(tar_of(members, format=style, errors="surrogateescape"))
        assert item.origin.key == "caf\ufffd"
        assert item.description.metadata == {"other_members": ["f\ufffdle"]}


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("ending", ["pyd", "pickle", "pkl", "pt", "pth", "npy", "npz", "wav", "json", "txt", "dill"])
def test_no_member_is_ever_unpickled(read_tar: ReadAll, tmp_path: Path, ending: str) -> None:
    bomb = pickle.dumps(Trap(tmp_path / "sprung"))
    items = read_tar(tar_of([("a.flac", b"x"), (f"a.{ending}", bomb), (f"b.{ending}", bomb)]))
    assert items[0].data == b"x"
    assert not (tmp_path / "sprung").exists()
    pickle.loads(bomb)
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("document", "key", "value"),
    [
        (b"not json", "unreadable_json", "Expecting value"),
        (b"\xff\xfe", "unreadable_json", "utf-8"),
        (b"[" * 100_000, "unreadable_json", "recursion"),
        (b"[1, 2]", "json", [1, 2]),
        (b'"text"', "json", "text"),
        (b'{"n": NaN, "m": -Infinity}', "n", "nan"),
        (b'{"lone": "\\udcff"}', "lone", "\ufffd"),
        (b'\xef\xbb\xbf{"mark": 1}', "mark", 1),
        (b"", "unreadable_json", "Expecting value"),
    ],
)
def test_any_json_member_leaves_the_clip_usable(read_tar: ReadAll, document: bytes, key: str, value: Any) -> None:
    (item,) = read_tar(tar_of([("a.wav", b"x"), ("a.json", document)]))
    assert isinstance(item, RawClip)
    found = item.description.metadata[key]
    assert value in str(found) if key == "unreadable_json" else found == value
    json.dumps(item.description.metadata, allow_nan=False).encode("utf-8")


def test_json_nested_without_end_is_cut(read_tar: ReadAll) -> None:
    (item,) = read_tar(tar_of([("a.wav", b"x"), ("a.json", b'{"deep": ' + b"[" * 500 + b"]" * 500 + b"}")]))
    assert "nested deeper" in json.dumps(item.description.metadata)


def test_a_member_over_the_limit_is_refused_unread(read_tar: ReadAll) -> None:
    items = read_tar(tar_of([("a.wav", b"x" * 101), ("b.wav", b"x" * 100)]), max_clip_bytes=100)
    assert outcomes(items) == [("a", "too_many_bytes"), ("b", "clip")]
    assert items[0].message == "101 bytes, and 100 are allowed: input.max_clip_bytes"


def test_a_json_member_over_its_limit_is_named_and_left(read_tar: ReadAll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 10)
    (item,) = read_tar(tar_of([("a.wav", b"x"), ("a.json", b'{"k": "long"}'), ("a.txt", b"short")]))
    assert (item.description.text, item.description.metadata) == ("short", {"other_members": ["json"]})


def test_a_sample_without_end_is_not_held_whole(tmp_path: Path) -> None:
    """All of these have the key "1", by the rule that the ending begins at the first dot."""
    names = [f"1.{number}-song.wav" for number in range(200)]
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of((name, bytes(100_000)) for name in names))
    spec = ShardSpec(split="train", format="webdataset", uri=str(path), size=0, version="")
    config = InputConfig(splits={"train": (str(path),)}, max_clip_bytes=300_000)
    tracemalloc.start()
    assert [item.name for item in read_webdataset(spec, config) if isinstance(item, RawClip)] == names
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


CUT_AT = {
    "inside the first header": 100,
    "inside audio": 512 + 1000,
    "at the end of the first member": 512 + 2048,
    "inside a later header": 512 + 2048 + 200,
    "inside json": 512 + 2048 + 512 + 5,
    "inside the audio of b": 512 + 2048 + 3 * 1024 - 1024 + 512 + 100,
}


@pytest.mark.parametrize("place", CUT_AT)
def test_a_tar_that_is_cut_says_so_and_keeps_what_came_before(read_tar: ReadAll, place: str) -> None:
    items = read_tar(tar_of(TWO_SAMPLES)[: CUT_AT[place]])
    assert outcomes(items)[-1] == ("", "damaged_source")
    assert {
        "inside the first header": [],
        "inside audio": [("a", "damaged_source")],
        "at the end of the first member": [("a", "clip")],
        "inside a later header": [("a", "clip")],
        "inside json": [("a", "clip")],
        "inside the audio of b": [("a", "clip"), ("b", "damaged_source")],
    }[place] == outcomes(items)[:-1]


def test_a_tar_cut_anywhere_loses_nothing_in_silence(read_tar: ReadAll) -> None:
    whole = tar_of(TWO_SAMPLES, end=False)
    for cut in {*range(0, len(whole), 61), *range(0, len(whole) + 1, 512)}:
        items = read_tar(whole[:cut])
        assert outcomes(items)[-1] == ("", "damaged_source")
        assert all(item.data == dict(TWO_SAMPLES)[item.name] for item in items if isinstance(item, RawClip))


def test_a_gzipped_tar_that_is_cut_or_damaged_says_so(read_tar: ReadAll) -> None:
    packed = gzip.compress(tar_of([(f"{number}.wav", os.urandom(5000)) for number in range(20)]))
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    for data in (packed[: len(packed) // 2], bytes(damaged), packed[:-4], b"not gzip" * 100, b""):
        items = read_tar(data, "shard.tar.gz")
        assert outcomes(items)[-1][1] == "damaged_source"


def test_a_gzipped_tar_that_is_cut_keeps_what_came_before(read_tar: ReadAll) -> None:
    packed = gzip.compress(tar_of([(f"{number}.wav", os.urandom(20_000)) for number in range(10)]))
    items = read_tar(packed[: len(packed) // 2], "shard.tar.gz")
    assert outcomes(items)[:4] == [(str(number), "clip") for number in range(4)]
    assert [reason for _, reason in outcomes(items)[-2:]] == ["damaged_source"] * 2


@pytest.mark.parametrize("data", [b"", b"x", b"<html>" * 500, bytes(range(256)) * 8])
def test_what_is_no_tar_is_one_reject(read_tar: ReadAll, data: bytes) -> None:
    assert outcomes(read_tar(data)) == [("", "damaged_source")]


@pytest.mark.parametrize(("pack", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_a_packed_tar_whose_name_does_not_say_so_is_told_apart(
    read_tar: ReadAll, pack: Callable[[bytes], bytes], name: str
) -> None:
    (reject,) = read_tar(pack(tar_of(TWO_SAMPLES)))
    assert reject.reason == "damaged_source"
    assert f"packed with {name}" in reject.message


def test_an_empty_tar_holds_nothing_and_nothing_is_wrong(read_tar: ReadAll) -> None:
    assert read_tar(tar_of([])) == []


def test_tars_joined_with_cat_are_noticed(read_tar: ReadAll) -> None:
    items = read_tar(tar_of(TWO_SAMPLES) * 2)
    assert outcomes(items) == [("a", "clip"), ("b", "clip"), ("", "damaged_source")]
    assert "cat" in items[-1].message


def test_a_damaged_header_in_the_middle_is_noticed(read_tar: ReadAll) -> None:
    data = bytearray(tar_of(TWO_SAMPLES))
    data[data.index(b"b.flac") + 3] ^= 0xFF
    items = read_tar(bytes(data))
    assert outcomes(items) == [("a", "clip"), ("", "damaged_source")]
    assert "damaged header at byte" in items[-1].message


SIZES = {
    "beyond the file": b"00000777777\0",
    "8 GiB": b"77777777777\0",
    "2**80": b"\x80" + (2**80).to_bytes(11, "big"),
    "negative": b"\xff" * 10 + b"\xfe\x00",
    "very negative": b"\xff" + (2**87).to_bytes(11, "big"),
    "no number": b"not a number",
    "spaces": b" " * 12,
}


@pytest.mark.parametrize("kind", [b"0", b"L", b"K", b"x", b"g", b"X", b"S", b"5", b"7", b"?"])
@pytest.mark.parametrize("size", SIZES)
def test_a_size_that_lies_is_not_believed(read_tar: ReadAll, size: str, kind: bytes) -> None:
    before = tar_of([("a.wav", b"x")], end=False)
    data = before + rewritten_header(b"b.wav", SIZES[size], kind) + bytes(1024)
    tracemalloc.start()
    items = read_tar(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcomes(items)[0] == ("a", "clip")
    assert len(items) <= 4
    assert peak < 50 * 2**20


def test_a_pax_header_that_leads_backwards_does_not_go_round_for_ever(read_tar: ReadAll) -> None:
    record = b"17 size=-1000000\n"
    assert len(record) == 17
    pax = rewritten_header(b"pax", b"%011o\0" % len(record), b"x") + record.ljust(512, b"\0")
    data = tar_of([("a.wav", b"x")], end=False) + pax + rewritten_header(b"b.wav", b"00000000001\0") + bytes(2048)
    assert outcomes(read_tar(data))[-1] == ("", "damaged_source")


def test_long_name_headers_without_end_are_refused(read_tar: ReadAll) -> None:
    chain = (rewritten_header(b"long", b"00000000001\0", b"L") + bytes(512)) * 3000
    assert outcomes(read_tar(chain)) == [("", "damaged_source")]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 7000))
def test_bytes_overwritten_anywhere_end_in_rows_or_rejects(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], stop: int
) -> None:
    data = bytearray(tar_of(TWO_SAMPLES))
    for position, value in changes:
        data[position] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.tar"
    path.write_bytes(data[:stop] if stop < 3000 else data)
    spec = ShardSpec(split="train", format="webdataset", uri=str(path), size=0, version="")
    items = list(read_webdataset(spec, InputConfig(splits={"train": (str(path),)})))
    assert [item.origin.index for item in items] == list(range(len(items)))
    assert {item.reason for item in items if isinstance(item, Reject)} <= READ_REASONS.keys()
    assert len(items) <= 8
