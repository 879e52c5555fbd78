"""Sizes, lengths of time and tables as text for people."""

from __future__ import annotations

from collections.abc import Mapping


def lines_of(rows: Mapping[str, str]) -> str:
    """Names and values in two aligned columns, a line for each."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())


def format_bytes(count: float, space: str = " ") -> str:
    """A number of bytes in the unit that suits it, in powers of 1,000; `space` goes between number and unit."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.{0 if unit == 'B' else 1}f}{space}{unit}"
        count /= 1000
    return f"{count:.1f}{space}PB"


def format_seconds(seconds: float, space: str = " ") -> str:
    """A length of time in the unit that suits it; `space` goes between number and unit."""
    if 0 < seconds < 0.95:
        return f"{1000 * seconds:.0f}{space}ms"
    if seconds < 90:
        return f"{seconds:.{1 if seconds < 10 else 0}f}{space}s"
    if seconds < 5400:
        return f"{seconds / 60:.0f}{space}min"
    return f"{seconds / 3600:,.1f}{space}h"
