"""Records of JSONL, CSV and TSV files, each with the bytes that it occupies, so that a file can be cut into ranges.

A record that cannot be understood is still a record: it has an `error` in place of fields.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, TypeAlias

MAX_RECORD_BYTES = 16 * 2**20

_Quoting: TypeAlias = Literal[0, 3]  # QUOTE_MINIMAL and QUOTE_NONE of the csv module


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON line or one row of a table."""

    start: int
    """Offset of its first byte in the file."""
    stop: int
    """Offset of the byte after its last."""
    fields: dict[str, Any]
    error: str | None = None


def read_records(
    name: str, stream: BinaryIO, start: int = 0, stop: int | None = None, quoted: bool = True
) -> Iterator[Record]:
    """The records that begin in [start, stop), in order. `name` tells the kind by its ending; blank lines are skipped.

    Without `quoted` a double quote is a letter of its field, and every line of a table is a row.

    A range must begin where a record begins, as the extents of an earlier reading say, or at 0.
    """
    parse = _PARSERS[name.lower().rpartition(".")[2]]
    for record in parse(stream, start, quoted):
        if stop is not None and record.start >= stop:
            return
        yield record


def _line(stream: BinaryIO) -> tuple[bytes, int]:
    """The next line, or its first MAX_RECORD_BYTES and one, and the number of bytes that it really has."""
    line = stream.readline(MAX_RECORD_BYTES + 1)
    size = len(line)
    while size > MAX_RECORD_BYTES and not line.endswith(b"\n") and (rest := stream.readline(MAX_RECORD_BYTES)):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    return line, size


def _json_lines(stream: BinaryIO, start: int, quoted: bool) -> Iterator[Record]:
    stream.seek(start)
    stop = start
    while True:
        line, size = _line(stream)
        begin, stop = stop, stop + size
        if not line:
            return
        if size > MAX_RECORD_BYTES:
            yield Record(begin, stop, {}, f"a line of {size} bytes, and {MAX_RECORD_BYTES} are allowed")
        elif line.strip(b" \t\r\n\xef\xbb\xbf"):
            yield _json_record(begin, stop, line)


def _json_record(begin: int, end: int, line: bytes) -> Record:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Record(begin, end, {}, f"not a line of JSON in UTF-8: {error}")
    if not isinstance(fields, dict):
        return Record(begin, end, {}, f"expected a JSON object, found {type(fields).__name__}")
    return Record(begin, end, fields)


def _separated(delimiter: str) -> Callable[[BinaryIO, int, bool], Iterator[Record]]:
    def parse(stream: BinaryIO, start: int, quoted: bool) -> Iterator[Record]:
        quoting: _Quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        filled = (row for row in _rows(stream, 0, delimiter, quoting) if row[2] or row[3])
        header_start, data_start, header, error = next(filled, (0, 0, [], None))
        if error:
            yield Record(
                header_start,
                stream.seek(0, io.SEEK_END),
                {},
                f"the header, without which no row has a meaning: {error}",
            )
            return
        for begin, stop, row, row_error in _rows(stream, start or data_start, delimiter, quoting):
            if row_error is None and len(row) > len(header):
                row_error = f"{len(row)} fields under a header of {len(header)}"
            if row or row_error:
                yield Record(begin, stop, dict(zip(header, row, strict=False)), row_error)

    return parse


def _rows(
    stream: BinaryIO, start: int, delimiter: str, quoting: _Quoting
) -> Iterator[tuple[int, int, list[str], str | None]]:
    stream.seek(start)
    position = start

    def lines() -> Iterator[str]:
        nonlocal position
        while True:
            line, size = _line(stream)
            at_start, position = position == 0, position + size
            if not line:
                return
            if size > MAX_RECORD_BYTES:
                raise csv.Error(f"a line of {size} bytes, and {MAX_RECORD_BYTES} are allowed")
            try:
                yield line.decode("utf-8-sig" if at_start else "utf-8")
            except UnicodeDecodeError as error:
                raise csv.Error(f"not UTF-8: {error}") from error

    while True:
        begin = position
        try:
            # A quoted field may hold line breaks, so only the csv module knows where a row ends. After an error its
            # state is of no use: each row gets a reader of its own.
            row = next(csv.reader(lines(), delimiter=delimiter, quoting=quoting))
        except StopIteration:
            return
        except csv.Error as error:
            yield begin, position, [], f"not a row: {error}"
        else:
            yield begin, position, row, None


_PARSERS: dict[str, Callable[[BinaryIO, int, bool], Iterator[Record]]] = {
    "jsonl": _json_lines,
    "csv": _separated(","),
    "tsv": _separated("\t"),
}
