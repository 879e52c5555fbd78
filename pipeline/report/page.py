"""The page: one HTML document that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import jinja2
from markupsafe import Markup

from pipeline.report.content import content
from pipeline.report.gather import PageData
from pipeline.report.spectrogram import RANGE_DB


def render(data: PageData) -> bytes:
    """The whole page. Its policy allows no script and nothing from outside, so that opening it asks nobody anything."""
    style = _part("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_part("page.html"))
    html = template.render(style=Markup(style), style_hash=Markup(digest), range_db=f"{RANGE_DB:g}", **content(data))
    return html.encode("utf-8", "backslashreplace")


def _part(name: str) -> str:
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")
