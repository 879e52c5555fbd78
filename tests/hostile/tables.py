"""Odd and hostile Parquet files, each with its rows in order: key, and "row" or the reason of the reject."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.moss_tok.audio_material import clip

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(*audio: bytes | None, **columns: pa.Array) -> bytes:
    return parquet(pa.table({"audio": pa.array(audio, pa.binary())} | columns))


def parquet(content: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(content, sink, row_group_size=2, write_page_checksum=True, compression="none")
    return sink.getvalue()


def sound() -> bytes:
    return clip("flac 16")


def flipped() -> bytes:
    """Four rows in two groups; a bit of the first sound is flipped."""
    data = bytearray(table(sound(), sound(), sound(), sound()))
    data[data.index(b"fLaC") + 1_000] ^= 1
    return bytes(data)


def unreadable_fields() -> bytes:
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    year = pa.array([2**45], pa.timestamp("s"))
    return table(sound(), text=text, year=year)


def pointers() -> bytes:
    cells = [{"bytes": None, "path": "/etc/passwd"}, {"bytes": sound(), "path": "../x.flac"}, None]
    return parquet(pa.table({"audio": pa.array(cells, AUDIO)}))


Outcomes = list[tuple[str, str]]
DAMAGED = ("", "damaged_source")
TABLES: dict[str, tuple[Callable[[], bytes], Outcomes]] = {
    "good.parquet": (lambda: table(sound(), id=pa.array(["one"])), [("one", "row")]),
    "no-rows.parquet": (lambda: table(), []),
    "no-bytes.parquet": (lambda: b"", [DAMAGED]),
    "text.parquet": (lambda: b"id,audio\n1,a.wav\n" * 100, [DAMAGED]),
    "cut.parquet": (lambda: table(sound())[:-100], [DAMAGED]),
    "footer-length.parquet": (lambda: table(sound())[:-8] + b"\xff\xff\xff\x7fPAR1", [DAMAGED]),
    "flipped.parquet": (
        flipped,
        [("0", "damaged_source"), ("1", "damaged_source"), ("2", "row"), ("3", "row")],
    ),
    "cells.parquet": (
        lambda: table(None, b"", b"<html></html>", sound(), id=pa.array([None, "", "x", "x"])),
        [("0", "no_audio"), ("1", "empty"), ("x", "not_audio"), ("x", "row")],
    ),
    "pointers.parquet": (pointers, [("0", "no_audio"), ("1", "row"), ("2", "no_audio")]),
    "unreadable-fields.parquet": (unreadable_fields, [("0", "row")]),
    "too-many-bytes.parquet": (lambda: table(bytes(5_000_000), sound()), [("0", "too_many_bytes"), ("1", "row")]),
}


def write_tables(folder: Path) -> None:
    folder.mkdir()
    for name, (make, _) in TABLES.items():
        (folder / name).write_bytes(make())
