"""Rows of a table that show shares of a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.pages.numerals import share
from pipeline.pages.plots import meter


@dataclass(frozen=True, slots=True)
class MeterRow:
    """A row of a table, with a bar that shows its share."""

    name: str
    number: str
    share: str
    meter: Markup


def meter_rows(lines: Sequence[tuple[str, float, str]]) -> list[MeterRow]:
    """Rows of (name, value, the value as text); a share is that of the sum of all values."""
    whole = sum(value for _, value, _ in lines)
    return [MeterRow(name, text, share(value, whole), meter(value, whole)) for name, value, text in lines]
