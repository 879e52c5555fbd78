"""Numbers and names as the page writes them: always the same digits, separators and units."""

from __future__ import annotations

import math
import unicodedata
from datetime import datetime, timezone

from pipeline.formatting import format_bytes, format_seconds

NARROW = "\u202f"
"""The space between a number and its unit, where no line breaks."""
MINUS = "\u2212"
NONE = "\u2013"
"""In place of a number that there is none of."""


def count(number: float) -> str:
    """A whole number, with commas between thousands."""
    return f"{number:,.0f}"


def quantity(number: float, unit: str, digits: int = 3) -> str:
    """A number of about `digits` significant digits with its unit; a dash where there is none."""
    if not math.isfinite(number):
        return NONE
    whole = len(str(int(abs(number)))) if abs(number) >= 1 else 0 if abs(number) >= 0.1 or number == 0 else -1
    return f"{number:,.{max(digits - whole, 0)}f}{NARROW}{unit}".replace("-", MINUS).rstrip(NARROW)


def share(part: float, whole: float) -> str:
    """A percentage; a dash of nothing."""
    if not whole:
        return NONE
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return f"<{NARROW}0.1{NARROW}%"
    return f"{percent:.0f}{NARROW}%" if percent in (0, 100) else f"{percent:.1f}{NARROW}%"


def span(seconds: float) -> str:
    """A length of time, in the unit that suits it."""
    return format_seconds(seconds, NARROW)


def size(count: float) -> str:
    """A number of bytes, in powers of 1,000."""
    return format_bytes(count, NARROW)


def moment(unix_seconds: float) -> str:
    """A date and time of day, UTC."""
    return datetime.fromtimestamp(unix_seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def decibels(amplitude: float) -> float:
    """20 log10 of a fraction of full scale; -inf for silence."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def shown(text: str, limit: int = 300) -> str:
    """Text from outside that cannot disturb the page: no control or direction characters, and not endless."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character
        for character in cut
    )
