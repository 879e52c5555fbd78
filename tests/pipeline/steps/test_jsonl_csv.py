"""Every record of a manifest is read exactly once, whole file or in ranges, and no line can stop the reading."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.steps import jsonl_csv
from pipeline.steps.jsonl_csv import Record, read_records

KEYS = st.text(min_size=1, max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=12)
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["", '"', "a,b", "tab\there", "line\nbreak", "carriage\r\nreturn", "ü日本"]
)


def records_of(name: str, data: bytes) -> list[Record]:
    return list(read_records(name, io.BytesIO(data)))


def in_ranges(name: str, data: bytes, clips: int) -> list[Record]:
    """What comes out when the file is cut by the extents of its records, each range read from a stream of its own."""
    whole = records_of(name, data)
    cuts = [whole[first : first + clips] for first in range(0, len(whole), clips)]
    records = [
        record
        for cut in cuts
        for record in read_records(
            name, io.BytesIO(data), cut[0].start, cut[-1].stop, first_line=cut[0].line if cut[0].start else 1
        )
    ]
    assert [record.line for record in records] == [record.line for record in whole]
    return records


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    OBJECTS,
    st.integers(1, 4),
    st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_json_lines_cut_into_ranges_give_each_object_once(
    objects: list[dict[str, Any]], clips: int, ending: str, last_ending: bool, mark: bool, escape: bool
) -> None:
    text = ending.join(json.dumps(item, ensure_ascii=escape) for item in objects)
    data = (b"\xef\xbb\xbf" if mark else b"") + text.encode() + (ending.encode() if last_ending else b"")
    records = records_of("a.jsonl", data)
    assert [record.fields for record in records] == objects
    assert not any(record.error for record in records)
    assert in_ranges("a.jsonl", data, clips) == records


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=3).filter(any), max_size=10),
    st.integers(1, 4),
    st.sampled_from([("a.csv", ","), ("a.tsv", "\t"), ("A.CSV", ",")]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_tables_cut_into_ranges_give_each_row_once(
    rows: list[list[str]], clips: int, kind: tuple[str, str], ending: str, last_ending: bool, mark: bool
) -> None:
    name, delimiter = kind
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([["audio", "text", "speaker"], *rows])
    text = sink.getvalue() if last_ending else sink.getvalue().removesuffix(ending)
    data = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    records = records_of(name, data)
    assert [record.fields for record in records] == [
        dict(zip(("audio", "text", "speaker"), row, strict=False)) for row in rows
    ]
    assert not any(record.error for record in records)
    assert in_ranges(name, data, clips) == records


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["a.jsonl", "a.csv", "a.tsv"]), st.integers(1, 3))
def test_any_bytes_at_all_are_read_to_the_end_in_ranges_as_in_one(data: bytes, name: str, clips: int) -> None:
    whole = records_of(name, data)
    assert in_ranges(name, data, clips) == whole
    edges = [edge for record in whole for edge in (record.start, record.stop)]
    assert edges == sorted(edges)
    assert all(0 <= record.start < record.stop <= len(data) for record in whole)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"not json", "not a line of JSON"),
        (b'{"audio": "a.wav"', "not a line of JSON"),
        (b'{"audio": "\xff.wav"}', "not a line of JSON in UTF-8"),
        (b"[1, 2]", "expected a JSON object, found list"),
        (b"null", "found NoneType"),
        (b"[" * 100_000, "not a line of JSON"),
    ],
)
def test_a_bad_line_is_a_record_with_an_error_between_good_ones(line: bytes, error: str) -> None:
    records = records_of("a.jsonl", b'{"k": 1}\n' + line + b'\n{"k": 2}\n')
    assert [record.fields for record in records] == [{"k": 1}, {}, {"k": 2}]
    assert error in str(records[1].error)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (b"a.wav,hello,too,many", "4 fields under a header of 2"),
        (b"\xff.wav,hello", "not UTF-8"),
        (b"a.wav," + b"x" * 200_000, "field larger"),
    ],
)
def test_a_bad_row_is_a_record_with_an_error_between_good_ones(row: bytes, error: str) -> None:
    records = records_of("a.csv", b"audio,text\n1.wav,one\n" + row + b"\n2.wav,two\n")
    assert [record.fields for record in (records[0], records[-1])] == [
        {"audio": "1.wav", "text": "one"},
        {"audio": "2.wav", "text": "two"},
    ]
    assert len(records) == 3
    assert error in str(records[1].error)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize("excess", [-1, 0, 1, 5, 64, 65, 1000])
def test_a_line_over_the_limit_is_one_bad_record_and_the_next_is_read(
    name: str, excess: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl_csv, "MAX_RECORD_BYTES", 64)
    good = b'{"audio": "b.wav"}\n' if name == "a.jsonl" else b"b.wav\n"
    frame = (b'{"audio": "', b'"}\n') if name == "a.jsonl" else (b"", b"\n")
    long = frame[0] + b"x" * (64 + excess - len(frame[0] + frame[1])) + frame[1]
    data = (b"" if name == "a.jsonl" else b"audio\n") + long + good
    records = records_of(name, data)
    assert [bool(record.error) for record in records] == [excess > 0, False]
    assert records[0].stop - records[0].start == len(long)
    assert records[1].fields == {"audio": "b.wav"}
    assert in_ranges(name, data, 1) == records
    ends_long = records_of(name, data.removesuffix(good).rstrip(b"\n"))
    assert [bool(record.error) for record in ends_long] == [excess > 1]


def test_a_huge_line_is_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_csv, "MAX_RECORD_BYTES", 1000)

    class Watched(io.BytesIO):
        largest = 0

        def readline(self, size: int | None = -1) -> bytes:
            line = super().readline(size)
            self.largest = max(self.largest, len(line))
            return line

    for name in ("a.jsonl", "a.csv"):
        stream = Watched(b"audio\n" + b"x" * 1_000_000)
        assert [bool(record.error) for record in read_records(name, stream)][-1]
        assert stream.largest <= 1001


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b" \r\n"])
def test_files_without_records_have_none(data: bytes) -> None:
    assert records_of("a.jsonl", data) == []


@pytest.mark.parametrize("data", [b"", b"\n\n", b"audio,text\n", b"\n\naudio,text\n\n"])
def test_tables_without_rows_have_no_records(data: bytes) -> None:
    assert records_of("a.csv", data) == []


def test_blank_lines_before_the_header_and_between_rows_are_skipped() -> None:
    records = records_of("a.csv", b"\n\naudio,text\n\na.wav,one\n\n\nb.wav,two\n")
    assert [record.fields["audio"] for record in records] == ["a.wav", "b.wav"]


def test_a_table_whose_header_cannot_be_read_is_one_bad_record_and_not_nothing() -> None:
    for data in (b"\xff\xfea\0u\0d\0i\0o\0\n\0", b"audio,text\ra.wav,one\rb.wav,two\r"):
        (record,) = records_of("a.csv", data)
        assert "header" in str(record.error)
        assert (record.start, record.stop) == (0, len(data))


@pytest.mark.parametrize(
    ("rows", "bad", "error"),
    [
        ('a.wav,"hello\nb.wav,world\nc.wav,"foo"\nd.wav,bar\n', 2, "expected after"),
        ('a.wav,"hello\nb.wav,world"\nc.wav,foo\nd.wav,bar\n', 2, "over line 3, which is a row"),
        ('a.wav,one\nb.wav,"hello\nc.wav,foo\nd.wav,bar\n', 3, "end of data"),
        ('x/a,"hello\nx/b,world"\nx/c,foo\nx/d,bar\n', 2, "over line 3, which is a row"),
        ('a.wav,"he" said\nb.wav,x\nc.wav,y\nd.wav,z\n', 2, "expected after"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_quote_that_is_not_closed_swallows_no_rows_and_its_line_is_named(
    rows: str, bad: int, error: str, delimiter: str
) -> None:
    data = ("path,text\n" + rows).replace(",", delimiter).encode()
    name = "a.csv" if delimiter == "," else "a.tsv"
    records = records_of(name, data)
    assert [record.line for record in records] == [2, 3, 4, 5]
    assert {record.line for record in records if record.error} == {bad}
    assert all(error in str(record.error) for record in records if record.error)
    assert in_ranges(name, data, 1) == records


def test_an_unclosed_quote_costs_a_few_lines_of_reading_and_not_the_file() -> None:
    lines = [f'clip {number},"said' if number == 3 else f"clip {number},said" for number in range(10_000)]
    data = ("path,text\n" + "\n".join(lines)).encode()
    stream = io.BytesIO(data)
    records = list(read_records("a.csv", stream))
    assert len(records) == 10_000
    (bad,) = [record for record in records if record.error]
    assert (bad.line, "more than 32 lines" in str(bad.error)) == (5, True)


def test_quoted_fields_may_hold_lines() -> None:
    (record, after) = records_of("a.csv", b'path,text\na.wav,"Well, yes,\nno, and again."\nb.wav,x\n')
    assert record.fields["text"] == "Well, yes,\nno, and again."
    assert (record.line, after.line) == (2, 4)


def test_a_text_of_two_lines_may_stand_before_the_file_that_it_belongs_to() -> None:
    records = records_of("a.csv", b'text,speaker,audio\n"two\nlines",x,in/a.wav\none,x,in/b.wav\n')
    assert [record.error for record in records] == [None, None]
    assert [record.fields["text"] for record in records] == ["two\nlines", "one"]


def test_an_open_quote_that_a_later_row_of_the_same_file_closes_swallows_no_row() -> None:
    records = records_of("a.csv", b'audio,text\na.wav,"one\na.wav,two\na.wav,three"\nb.wav,four\n')
    assert "line 3, which is a row" in str(records[0].error)
    assert [record.fields.get("text") for record in records[1:]] == ["two", 'three"', "four"]


def test_each_bad_line_of_json_is_named() -> None:
    records = records_of("a.jsonl", b'{"a": 1}\n\nbroken\n{"a": 2}\n[]\n')
    assert [(record.line, bool(record.error)) for record in records] == [(1, False), (3, True), (4, False), (5, True)]


def test_a_short_row_lacks_its_last_fields() -> None:
    (record,) = records_of("a.csv", b"audio,text\na.wav\n")
    assert record.fields == {"audio": "a.wav"}
