"""Expressions over the columns of an output and over the metadata of its clips, in SQL, computed by DuckDB.

    duration > 1 and dnsmos > 3.2 and language in ('en', 'de')

A name that is no column is a key of the clip's metadata; a clip without that key has null there. The values of a row
depend on the row alone: aggregates, windows, subqueries and functions such as random() are refused. DuckDB can reach
neither files nor networks from here.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline import schema
from pipeline.extras import require

COLUMNS = tuple(schema.clip_columns())
METADATA = "metadata"
_REFUSED = {
    "SUBQUERY": "a subquery",
    "STAR": "a star",
    "WINDOW": "a window",
    "PARAMETER": "a parameter",
}
_SETTINGS = {"enable_external_access": "false", "threads": "1"}


class Expression:
    """An expression that is understood. Raises ValueError for one that is not, and MissingPackage without DuckDB."""

    def __init__(self, text: str, known: tuple[str, ...] = COLUMNS) -> None:
        """`known` are the columns that there are."""
        self._text = text
        # SQL does not tell upper from lower case; keys of JSON do.
        names = dict.fromkeys(name.casefold() if name.casefold() in known else name for name in self._names())
        self._keys = [name for name in names if name not in known]
        self.columns = [name for name in names if name in known]
        """Columns to read."""
        if self._keys and METADATA not in self.columns:
            self.columns.append(METADATA)
        if not self.columns:
            self.columns.append("id")

    def values(self, batch: pa.RecordBatch) -> pa.Array:
        """The value for each row of a batch that has `columns`. Raises ValueError for types that do not fit."""
        table = pa.table({name: batch.column(name) for name in self.columns})
        if self._keys:
            records = [json.loads(text) for text in batch.column(METADATA).to_pylist()]
            for key in self._keys:
                table = table.append_column(key, _array([record.get(key) for record in records]))
        try:
            relation = connection().from_arrow(table).project(f"(\n{self._text}\n) AS value")
            return relation.to_arrow_table()["value"].combine_chunks()
        except require("duckdb", "filters").Error as error:
            raise self._error(str(error)) from error

    def _names(self) -> Iterator[str]:
        """Names of columns and keys, as the parser of DuckDB finds them."""
        query = f"SELECT (\n{self._text}\n)"
        [(answer,)] = connection().execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        tree = json.loads(answer)
        if tree["error"]:
            raise self._error(tree["error_message"])
        if len(tree["statements"]) != 1 or len(tree["statements"][0]["node"]["select_list"]) != 1:
            raise self._error("give one expression")
        allowed = _allowed_functions()
        for node in _nodes(tree["statements"][0]["node"]["select_list"][0]):
            kind = node.get("class")
            if kind in _REFUSED:
                raise self._error(f"{_REFUSED[kind]} cannot be used: an expression is about one row")
            if kind == "FUNCTION" and node["function_name"].casefold() not in allowed:
                raise self._error(
                    f"{node['function_name']}: no function of DuckDB whose value depends on the row alone"
                )
            if kind == "COLUMN_REF":
                yield node["column_names"][0]

    def _error(self, message: str) -> ValueError:
        return ValueError(f"{self._text!r}: {' '.join(message.split())}")


class _Local(threading.local):
    process = 0
    connection: Any = None


_LOCAL = _Local()


def connection() -> Any:
    """The connection of this thread to a DuckDB of its own: one is neither for two threads nor for a forked process."""
    if _LOCAL.process != os.getpid():
        _LOCAL.connection = require("duckdb", "filters").connect(":memory:", config=_SETTINGS)
        _LOCAL.connection.execute("SET lock_configuration = true")
        _LOCAL.process = os.getpid()
    return _LOCAL.connection


@cache
def expression(text: str, known: tuple[str, ...] = COLUMNS) -> Expression:
    """Made once in a process."""
    return Expression(text, known)


def condition(text: str, batch: pa.RecordBatch, known: tuple[str, ...] = COLUMNS) -> pa.BooleanArray:
    """Whether the condition holds for each row; null where a value that it needs is missing.

    Raises ValueError for an expression that is no condition.
    """
    values = expression(text, known).values(batch)
    if not pa.types.is_boolean(values.type):
        raise ValueError(f"{text!r}: no condition but a value ({values.type}): compare it with something")
    return values


class Chosen(NamedTuple):
    """The rows of which a condition holds."""

    where: str
    known: tuple[str, ...] = COLUMNS
    """The columns that there are."""

    def checked(self) -> Chosen:
        """This, if the condition is understood. Raises ValueError or MissingPackage."""
        expression(self.where, self.known)
        return self

    @property
    def columns(self) -> list[str]:
        """Columns to read."""
        return expression(self.where, self.known).columns

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch that has these columns; without those that lack a value."""
        return batch.filter(condition(self.where, batch, self.known))


@cache
def _allowed_functions() -> frozenset[str]:
    """Names of the functions of DuckDB that give a value for a row, always the same one."""
    rows = connection().execute(
        "SELECT function_name, bool_and(function_type IN ('scalar', 'macro')) "
        "AND bool_and(stability IS DISTINCT FROM 'VOLATILE') "
        "AND bool_or(coalesce(stability, 'CONSISTENT') = 'CONSISTENT') FROM duckdb_functions() GROUP BY function_name"
    )
    return frozenset(name.casefold() for name, fits in rows.fetchall() if fits)


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            yield from _nodes(child)


def _array(values: list[Any]) -> pa.Array:
    """JSON values as Arrow; as text where they are of several types."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])
