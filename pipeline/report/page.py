"""Renders the page: one self-contained HTML document."""

from __future__ import annotations

from pipeline.pages.document import render_page
from pipeline.report.content import content
from pipeline.report.gather import PageData
from pipeline.report.spectrogram import RANGE_DB


def render(data: PageData) -> bytes:
    """The page as HTML."""
    return render_page("pipeline.report", "page.html", range_db=f"{RANGE_DB:g}", **content(data))
