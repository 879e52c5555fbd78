"""What a column of an output holds, a key of the metadata, or any expression over both: counts, and a histogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.dataset.dataset import Output
from pipeline.dataset.expression import Chosen, expression
from pipeline.pages.plots import steps
from pipeline.parquet import read_columns

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(slots=True)
class Values:
    """The values of all rows."""

    rows: int = 0
    missing: int = 0
    """Rows without a value, or with one that is not finite."""
    numbers: list[np.ndarray] = field(default_factory=list)
    """Float64, for a column of numbers."""
    words: Counter[str] = field(default_factory=Counter)
    """How often each value is there, for any other column; of lists, each of their values."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of numbers."""

    low: float
    high: float
    mean: float
    quantiles: dict[str, float]
    """By their share."""
    edges: list[float]
    """Round numbers; a bin holds its left edge, and the last one both."""
    counts: list[int]
    """Rows in each bin."""


def read_values(output: Output, text: str, chosen: Chosen | None = None) -> Values:
    """The values of an expression in the committed rows, or in the chosen ones of them.

    Only the columns that are needed are read. Memory is 8 bytes for each number, or that of the different words.
    Raises ValueError for an expression that is none, and what reading raises.
    """
    asked = expression(text, output.record.value_columns)
    found = Values()
    for batch in _batches(output, list(dict.fromkeys([*asked.columns, *(chosen.columns if chosen else [])]))):
        values = asked.values(chosen.of(batch) if chosen else batch)
        found.rows += len(values)
        found.missing += values.null_count
        values = values.drop_null()
        if pa.types.is_list(values.type):
            values = values.flatten().drop_null()
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
            numbers = np.asarray(values.cast(pa.float64()))
            finite = np.isfinite(numbers)
            found.numbers.append(numbers[finite])
            found.missing += int(np.count_nonzero(~finite))
        else:
            found.words.update(str(value) for value in values.to_pylist())
    return found


def distribution(numbers: np.ndarray, bins: int) -> Distribution | None:
    """Of finite numbers, in about so many bins with round edges; None if there are none."""
    if not numbers.size:
        return None
    low, high = float(numbers.min()), float(numbers.max())
    edges = _edges(low, high, bins)
    counts, _ = np.histogram(numbers, edges)
    quantiles = np.quantile(numbers, QUANTILES)
    named = {f"{share:g}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)}
    return Distribution(low, high, float(numbers.mean()), named, edges, counts.tolist())


def _edges(low: float, high: float, bins: int) -> list[float]:
    """From at most `low` to at least `high`."""
    marks = steps(low, high, bins)
    if len(marks) < 2:
        return [low, high] if high > low else [low - 0.5, low + 0.5]
    step = marks[1] - marks[0]
    before = [round(marks[0] - step, 10)] if marks[0] > low else []
    after = [round(marks[-1] + step, 10)] if marks[-1] < high else []
    return [*before, *marks, *after]


def _batches(output: Output, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for spec in output.committed:
        yield from read_columns(output.layout.stat_committed(output.layout.data(spec)), columns)
