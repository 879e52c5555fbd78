"""The index of decisions names every decision."""

from __future__ import annotations

import re

from tests.support import ROOT

FOLDER = ROOT / "docs" / "decisions"


def test_the_index_names_every_decision_once():
    pages = sorted(path.name for path in FOLDER.glob("[0-9]*.md"))
    named = re.findall(r"^\| \[\d{4}\]\((\d{4}-[\w.-]+\.md)\)", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == pages


def test_no_two_decisions_share_a_number():
    numbers = [path.name[:4] for path in FOLDER.glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))
