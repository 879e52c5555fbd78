"""The signals of the sampled clips: quantiles of numbers, and how often each word is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.pages.numerals import count, quantity, shown
from pipeline.report.meter_rows import MeterRow, meter_rows
from pipeline.report.values import QUANTILES

WORDS = 12
"""Values that a table of words lists; the others are added up in one row."""


def describe_signals(signals: Mapping[str, Sequence[pa.Array]]) -> dict[str, Any]:
    """Variables of the page: a table of the columns of numbers, and one for each column of words."""
    columns = {name: pa.chunked_array(values) for name, values in signals.items() if values}
    words = {name: column for name, column in columns.items() if pa.types.is_string(column.type)}
    return {
        "signal_quantiles": ["median" if share == 0.5 else f"{100 * share:g} %" for share in QUANTILES],
        "signals": [_numbers(name, column) for name, column in columns.items() if name not in words],
        "words": [(name, _words(column)) for name, column in words.items()],
    }


def _numbers(name: str, column: pa.ChunkedArray) -> list[str]:
    there = column.drop_null().to_numpy()
    quantiles = np.quantile(there, QUANTILES) if there.size else np.full(len(QUANTILES), np.nan)
    return [name, *(quantity(float(value), "") for value in quantiles), count(column.null_count)]


def _words(column: pa.ChunkedArray) -> list[MeterRow]:
    ranked = Counter(column.drop_null().to_pylist()).most_common()
    lines = [(shown(word, 60), number, count(number)) for word, number in ranked[:WORDS]]
    others = sum(number for _, number in ranked[WORDS:])
    more = [(f"{len(ranked) - WORDS} others", others, count(others))] if others else []
    none = [("none", column.null_count, count(column.null_count))] if column.null_count else []
    return meter_rows([*lines, *more, *none])
