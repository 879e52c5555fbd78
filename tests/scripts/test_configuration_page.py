"""The page of the configuration is what the typed configuration says now."""

from __future__ import annotations

from scripts.configuration_page import PAGE, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run: python scripts/configuration_page.py"


def test_every_key_is_described():
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert all(len(row.rstrip("| ").rpartition("|")[2]) > 10 for row in rows)
