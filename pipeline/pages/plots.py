"""Plots as SVG that fills its column: positions are percentages, so that text keeps its size on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.pages.numerals import MINUS


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale with its marks."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    """Values and how they are written."""
    label: str

    def place(self, value: float) -> float:
        """Percentage of the way from `low` to `high`."""
        return 100 * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, from 0 to `height`."""

    left: float
    right: float
    height: float
    title: str
    """What a pointer that rests on it shows."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line through points, with its name beside its end."""

    points: Sequence[tuple[float, float]]
    name: str
    kind: str
    """Class of the stroke: first, second or third."""


def steps(low: float, high: float, about: int = 5) -> list[float]:
    """About so many round values (1, 2 or 5 times a power of ten apart) between two bounds."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def axis(low: float, high: float, label: str, about: int = 5, unit: str = "") -> Axis:
    """A scale with round marks; one of no extent is widened."""
    high = high if high > low else low + 1
    ticks = steps(low, high, about)
    return Axis(low, high, [(value, f"{value:,.10g}{unit}".replace("-", MINUS)) for value in ticks], label)


def roof(value: float, about: int = 4) -> float:
    """The round value at or above `value` where an axis from 0 can end."""
    if value <= 0:
        return 1.0
    step = steps(0, value, about)[1]
    return step * math.ceil(value / step - 1e-9)


def bar_plot(x: Axis, y: Axis, bars: Sequence[Bar], alt: str, limit: tuple[float, str] | None = None) -> Markup:
    """Bars on two axes; `limit` is a dashed line across, with its name."""
    marks = [_bar(x, y, bar) for bar in bars if bar.height > 0]
    if limit is not None:
        marks.append(_limit(y, *limit))
    return _plot(x, y, marks, alt)


def line_plot(x: Axis, y: Axis, lines: Sequence[Line], alt: str) -> Markup:
    """Lines on two axes, each named at its end."""
    drawn = [_line(x, y, line) for line in lines]
    inner = Markup('<svg class="lines" viewBox="0 0 100 100" preserveAspectRatio="none">{}</svg>').format(_join(drawn))
    return _plot(x, y, [inner], alt)


def meter(value: float, whole: float) -> Markup:
    """A small bar for a cell of a table; the number beside it says the same."""
    width = 100 * value / whole if whole else 0
    return Markup('<svg class="meter" aria-hidden="true"><rect width="{:.2f}%" height="100%"/></svg>').format(width)


def _plot(x: Axis, y: Axis, marks: Sequence[Markup], alt: str) -> Markup:
    rows = [
        Markup('<line class="grid" x1="0" x2="100%" y1="{0:.2f}%" y2="{0:.2f}%"/>').format(100 - y.place(value))
        + Markup('<text class="y" x="-8" y="{:.2f}%" dy="0.32em">{}</text>').format(100 - y.place(value), text)
        for value, text in y.ticks
    ]
    columns = [
        Markup('<line class="tick" x1="{0:.2f}%" x2="{0:.2f}%" y1="100%" y2="100%"/>').format(x.place(value))
        + Markup('<text class="x" x="{:.2f}%" y="100%" dy="20">{}</text>').format(x.place(value), text)
        for value, text in x.ticks
    ]
    labels = [
        Markup('<text class="label" x="0" y="0" dy="-12" dx="-36">{}</text>').format(y.label),
        Markup('<text class="label end" x="100%" y="100%" dy="40">{}</text>').format(x.label),
        Markup('<line class="base" x1="0" x2="100%" y1="100%" y2="100%"/>'),
    ]
    body = _join([*rows, *columns, *marks, *labels])
    return Markup('<svg class="plot" role="img" aria-label="{}">{}</svg>').format(alt, body)


def _bar(x: Axis, y: Axis, bar: Bar) -> Markup:
    left, width = x.place(bar.left), x.place(bar.right) - x.place(bar.left)
    height = min(y.place(bar.height), 100.0)
    gap = width * 0.06
    return Markup(
        '<rect class="bar" x="{:.3f}%" y="{:.3f}%" width="{:.3f}%" height="{:.3f}%"><title>{}</title></rect>'
    ).format(left + gap, 100 - height, width - 2 * gap, height, bar.title)


def _line(x: Axis, y: Axis, line: Line) -> Markup:
    points = " ".join(f"{x.place(a):.3f},{100 - y.place(b):.3f}" for a, b in line.points)
    return Markup('<polyline class="{}" points="{}"><title>{}</title></polyline>').format(line.kind, points, line.name)


def _limit(y: Axis, value: float, name: str) -> Markup:
    place = 100 - y.place(value)
    return Markup('<line class="limit" x1="0" x2="100%" y1="{0:.2f}%" y2="{0:.2f}%"/>').format(place) + Markup(
        '<text class="note" x="100%" y="{:.2f}%" dy="-6">{}</text>'
    ).format(place, name)


def _join(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)
