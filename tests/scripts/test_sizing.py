"""The table of sizes in the documentation is the script's."""

from __future__ import annotations

from pathlib import Path

from scripts.sizing import table

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def test_the_page_has_the_scripts_table():
    assert table(5000, 1130, 2.5, 0.04, 8) in PAGE.read_text()


def test_twice_the_speed_takes_half_the_hours():
    slow, fast = (table(speed, 1000, 1, 0, 1).splitlines()[-1].split("|") for speed in (1000, 2000))
    assert float(slow[2].replace(",", "")) == 2 * float(fast[2].replace(",", ""))
