"""Records of JSONL, CSV and TSV files, each with the bytes that it takes, so that a file can be cut into ranges.

A record that cannot be understood is still a record: it has an `error` instead of fields. If a quote is not closed,
only the line where it opens becomes such a record, and reading goes on after it. So an open quote swallows no rows.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypeAlias

from pipeline.steps.formats import AUDIO_ENDINGS

MAX_RECORD_BYTES = 16 * 2**20
MAX_ROW_LINES = 32
"""Limit for a row whose quoted fields hold line breaks. A longer row counts as a quote that is not closed."""

_Quoting: TypeAlias = Literal[0, 3]  # QUOTE_MINIMAL and QUOTE_NONE of the csv module


@dataclass(frozen=True, slots=True)
class Record:
    """One line of JSON, or one row of a table."""

    start: int
    """Offset of its first byte in the file."""
    stop: int
    """Offset of the byte after its last."""
    fields: dict[str, Any]
    error: str | None = None
    """Why it cannot be understood; None if it can."""
    line: int = field(default=1, compare=False)
    """Number of its first line in the file, counted from 1, if the reader was told the number of the range's first
    line."""


def read_records(
    name: str, stream: BinaryIO, start: int = 0, stop: int | None = None, quoted: bool = True, first_line: int = 1
) -> Iterator[Record]:
    """The records that begin in [start, stop), in order. Blank lines are skipped.

    The ending of `name` tells the kind. Without `quoted`, a double quote is a letter of its field and every line of a
    table is a row. A range must begin at 0 or where a record begins, as an earlier reading gave it; `first_line` is the
    number of the line there.
    """
    parse = _PARSERS[name.lower().removesuffix(".gz").rpartition(".")[2]]
    for record in parse(stream, start, quoted, first_line):
        if stop is not None and record.start >= stop:
            return
        yield record


def _line(stream: BinaryIO) -> tuple[bytes, int]:
    """The next line and its length in bytes. Of a line longer than MAX_RECORD_BYTES, that many bytes and one are
    returned."""
    line = stream.readline(MAX_RECORD_BYTES + 1)
    size = len(line)
    while size > MAX_RECORD_BYTES and not line.endswith(b"\n") and (rest := stream.readline(MAX_RECORD_BYTES)):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    return line, size


def _json_lines(stream: BinaryIO, start: int, quoted: bool, first_line: int) -> Iterator[Record]:
    stream.seek(start)
    stop = start
    for number in itertools.count(first_line):
        line, size = _line(stream)
        begin, stop = stop, stop + size
        if not line:
            return
        if size > MAX_RECORD_BYTES:
            yield Record(begin, stop, {}, f"a line of {size} bytes, and {MAX_RECORD_BYTES} are allowed", number)
        elif line.strip(b" \t\r\n\xef\xbb\xbf"):
            yield _json_record(begin, stop, line, number)


def _json_record(begin: int, end: int, line: bytes, number: int) -> Record:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Record(begin, end, {}, f"not a line of JSON in UTF-8: {error}", number)
    if not isinstance(fields, dict):
        return Record(begin, end, {}, f"expected a JSON object, found {type(fields).__name__}", number)
    return Record(begin, end, fields, None, number)


def _separated(delimiter: str) -> _Parser:
    def parse(stream: BinaryIO, start: int, quoted: bool, first_line: int) -> Iterator[Record]:
        dialect = _Dialect(delimiter, csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        filled = (row for row in _rows(stream, 0, 1, dialect) if row.cells or row.error)
        header = next(filled, _Row(0, 0, 1, 1, []))
        if header.error:
            why = f"the header, without which no row has a meaning: {header.error}"
            yield Record(header.begin, stream.seek(0, io.SEEK_END), {}, why, header.line)
            return
        begin, line = (start, first_line) if start else (header.stop, header.next_line)
        for row in _rows(stream, begin, line, dialect, len(header.cells)):
            error = row.error
            if error is None and len(row.cells) > len(header.cells):
                error = f"{len(row.cells)} fields under a header of {len(header.cells)}"
            if row.cells or error:
                yield Record(row.begin, row.stop, dict(zip(header.cells, row.cells, strict=False)), error, row.line)

    return parse


@dataclass(frozen=True, slots=True)
class _Dialect:
    delimiter: str
    quoting: _Quoting

    def split(self, lines: Iterable[str]) -> list[str]:
        """The cells of the first row. Raises csv.Error, also for a quote that is not closed or that closes too
        early."""
        return next(csv.reader(lines, delimiter=self.delimiter, quoting=self.quoting, strict=True))


@dataclass(frozen=True, slots=True)
class _Row:
    begin: int
    stop: int
    line: int
    next_line: int
    cells: list[str]
    error: str | None = None


def _rows(stream: BinaryIO, start: int, first_line: int, dialect: _Dialect, width: int = 0) -> Iterator[_Row]:
    """The rows from a position on. `width` is the number of cells in a row, where it is known."""
    stream.seek(start)
    position, number = start, first_line
    while True:
        lines = _Lines(stream, position)
        error = None
        try:
            # A quoted field may hold line breaks, so only the csv module knows where a row ends. After an error its
            # state is of no use: each row gets a reader of its own.
            cells = dialect.split(lines)
            if swallowed := lines.looks_like_a_row(dialect, cells, width):
                error = f"a quoted field goes on over line {number + swallowed}, which is a row: a quote is not closed"
        except StopIteration:
            return
        except csv.Error as problem:
            error = f"not a row: {problem}"
        if error is None:
            yield _Row(position, lines.position, number, number + lines.count, cells)
            position, number = lines.position, number + lines.count
            continue
        stop = position + lines.first_size  # the lines after it may be sound
        stream.seek(stop)
        yield _Row(position, stop, number, number + 1, [], error)
        position, number = stop, number + 1


class _Lines:
    """The lines of one row, as far as the csv module asks for them."""

    def __init__(self, stream: BinaryIO, position: int) -> None:
        self._stream = stream
        self._begin = self.position = position
        self._texts: list[str] = []
        self.count = 0
        self.first_size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, size = _line(self._stream)
        if not line:
            raise StopIteration
        at_start = self.position == 0
        self.position += size
        self.count += 1
        self.first_size = self.first_size or size
        if self.position - self._begin > MAX_RECORD_BYTES:
            raise csv.Error(f"a line of {self.position - self._begin} bytes, and {MAX_RECORD_BYTES} are allowed")
        if self.count > MAX_ROW_LINES:
            raise csv.Error(f"a quoted field of more than {MAX_ROW_LINES} lines: a quote is not closed")
        try:
            text = line.decode("utf-8-sig" if at_start else "utf-8")
        except UnicodeDecodeError as error:
            raise csv.Error(f"not UTF-8: {error}") from error
        self._texts.append(text)
        return text

    def looks_like_a_row(self, dialect: _Dialect, cells: list[str], width: int) -> int:
        """Position of a line, after the first, which would be a row of its own with a file in it; 0 if there is none.

        A file is what ends like audio, or lies in a folder that the cells of this row name a file in. A cell of this
        row that lies in that line is none: a text of two lines may be before the file that it belongs to.
        """
        if self.count < 2:
            return 0  # nearly every row
        folders = {folder for cell in cells if (folder := _folder(cell))}
        own = _cells_by_line(cells)
        for after, text in enumerate(self._texts[1:], 1):
            others = [_bare(cell) for cell in text.split(dialect.delimiter)]
            swallowed = Counter(others) - Counter(own.get(after, ()))
            if len(others) == width and any(
                cell.lower().endswith(AUDIO_ENDINGS) or _folder(cell) in folders for cell in swallowed
            ):
                return after
        return 0


def _cells_by_line(cells: list[str]) -> dict[int, list[str]]:
    """The cells of one row that lie within one line each, by the position of that line in the row."""
    line = 0
    found: dict[int, list[str]] = {}
    for cell in cells:
        if breaks := cell.count("\n"):
            line += breaks
        else:
            found.setdefault(line, []).append(_bare(cell))
    return found


def _bare(cell: str) -> str:
    return cell.strip(' "\r\n')


def _folder(cell: str) -> str | None:
    """The folder of a path; None for a cell that is not one."""
    folder, slash, name = cell.rpartition("/")
    return folder + slash if slash and name and not any(letter.isspace() for letter in cell) else None


_Parser: TypeAlias = Callable[[BinaryIO, int, bool, int], Iterator[Record]]

_PARSERS: dict[str, _Parser] = {
    "jsonl": _json_lines,
    "csv": _separated(","),
    "tsv": _separated("\t"),
}
