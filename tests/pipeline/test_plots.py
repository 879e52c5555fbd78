"""Axes, bars and numbers as the page writes them."""

from __future__ import annotations

import math
import re

import pytest

from pipeline.pages.numerals import MINUS, NARROW, NONE, decibels, quantity, share, shown, size, span
from pipeline.pages.plots import Bar, axis, bar_plot, roof, steps


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (-80, 0, [-80, -60, -40, -20, 0]), (0, 0.3, [0, 0.1, 0.2, 0.3]), (5, 5, [5])],
)
def test_marks_are_round_numbers(low: float, high: float, expected: list[float]):
    assert steps(low, high) == expected


def test_an_axis_ends_on_a_mark_at_or_above_the_largest_value():
    for value in (0.004, 1, 7, 42, 99, 100, 101, 12_345_678):
        assert value <= roof(value) <= 2.5 * value
    assert roof(0) == 1


def test_bars_are_as_high_as_their_values_and_text_cannot_break_out():
    bars = [Bar(0, 1, 5, "five"), Bar(1, 2, 10, "</title><script>"), Bar(2, 3, 0, "none")]
    plot = bar_plot(axis(0, 4, "x"), axis(0, 10, "y"), bars, 'an "alt"')
    heights = [float(value) for value in re.findall(r'class="bar"[^>]* height="([\d.]+)%"', plot)]
    assert heights == [50, 100]
    assert "<script" not in plot
    assert 'aria-label="an &#34;alt&#34;"' in plot


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (quantity(0.1254, "kbit/s"), "0.125 kbit/s"),
        (quantity(-23.456, "dBFS"), f"{MINUS}23.5 dBFS"),
        (quantity(12_345, "x"), "12,345 x"),
        (quantity(9.63, "bits"), "9.63 bits"),
        (quantity(math.nan, "x"), NONE),
        (decibels(0.0), -math.inf),
        (share(1, 3), "33.3 %"),
        (share(1, 100_000), "< 0.1 %"),
        (share(0, 0), NONE),
        (span(0.0123), "12 ms"),
        (span(445), "7 min"),
        (span(7200), "2.0 h"),
        (size(999), "999 B"),
        (size(1_234_567), "1.2 MB"),
        (size(999_999_999_999_999_999), "1000.0 PB"),
    ],
)
def test_numbers_have_units_and_a_few_digits(written: object, expected: object):
    assert (written.replace(NARROW, " ") if isinstance(written, str) else written) == expected


def test_text_from_outside_is_cut_and_made_visible():
    assert shown("a\u202eb\x00c\ud800") == "a\\u202eb\\u0000c\\ud800"
    assert shown("naïve 日本語 🎵") == "naïve 日本語 🎵"
    assert len(shown("x" * 10_000)) == 300
