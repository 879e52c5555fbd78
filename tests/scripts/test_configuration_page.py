"""The pages of the configurations are what the typed configurations say now."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.configuration_page import PAGES, page

every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@every_page
def test_the_page_is_up_to_date(path: Path):
    assert path.read_text() == page(path), "run: python scripts/configuration_page.py"


@every_page
def test_every_key_is_described(path: Path):
    rows = [line for line in page(path).splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert all(len(row.rstrip("| ").rpartition("|")[2]) > 10 for row in rows)
