"""The tables of the output page are what the definitions say now."""

from __future__ import annotations

import pytest

from scripts.column_tables import PAGE, with_tables


def test_the_tables_are_up_to_date():
    page = PAGE.read_text()
    assert with_tables(page) == page, "run: python scripts/column_tables.py"
    assert "| `peak` | float32 |  | Largest magnitude" in page
    assert "| `rejects_by_reason` | map<string,int64> |" in page


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="no marks"):
        with_tables(PAGE.read_text().replace("<!-- end of rejects.v1 -->", ""))
