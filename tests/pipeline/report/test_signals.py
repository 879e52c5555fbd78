"""Signals on the page: quantiles of numbers, shares of words."""

from __future__ import annotations

import pyarrow as pa

from pipeline.pages.numerals import NONE
from pipeline.report.signals import WORDS, describe_signals


def test_numbers_have_quantiles_and_say_how_many_clips_have_none():
    halves = [pa.array([100.0, 200.0, None]), pa.array([300.0, 400.0, 500.0])]
    told = describe_signals({"bandwidth": halves})
    assert told["signals"] == [["bandwidth", "120", "200", "300", "400", "480", "1"]]
    assert told["words"] == []


def test_a_signal_that_no_clip_has_shows_dashes():
    (row,) = describe_signals({"dnsmos": [pa.array([None, None], pa.float32())]})["signals"]
    assert row == ["dnsmos", *[NONE] * 5, "2"]


def test_words_have_shares_and_rare_ones_are_added_up():
    words = [f"language {number}" for number in range(WORDS + 3)]
    column = pa.array([*words, *words[:WORDS], "en", "en", "en", None])
    told = describe_signals({"detected_language": [column]})
    assert told["signals"] == []
    ((name, rows),) = told["words"]
    assert name == "detected_language"
    assert (rows[0].name, rows[0].number) == ("en", "3")
    assert [(row.name, row.number) for row in rows[-2:]] == [("4 others", "5"), ("none", "1")]


def test_an_output_without_signals_has_no_table():
    assert describe_signals({}) == {
        "signal_quantiles": ["5 %", "25 %", "median", "75 %", "95 %"],
        "signals": [],
        "words": [],
    }
