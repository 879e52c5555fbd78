"""Numbers and names as the page writes them: always the same digits, separators and units."""

from __future__ import annotations

import math
import unicodedata
from datetime import datetime, timezone

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
    if 0 < seconds < 1:
        return quantity(1000 * seconds, "ms", 1)
    if seconds < 60:
        return quantity(seconds, "s", 2 if seconds >= 10 else 3)
    if seconds < 3600:
        return f"{seconds // 60:.0f}{NARROW}min {seconds % 60:02.0f}{NARROW}s"
    return quantity(seconds / 3600, "h", 4)


def size(bytes_: float) -> str:
    """A number of bytes, in powers of 1,000."""
    power = min(max(len(f"{bytes_:.0f}") - 1, 0) // 3, 5)
    return quantity(bytes_ / 1000**power, ("B", "kB", "MB", "GB", "TB", "PB")[power], 3 if power else 1)


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
