"""Pages from templates: one HTML document that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup


def render_page(package: str, template: str, **values: Any) -> bytes:
    """A template of a package, filled in. It gets `style`, the style of all pages, and `style_hash` for its policy,
    which allows no script and nothing from outside, so that opening a page asks nobody anything.
    """
    style = _text("pipeline.pages", "page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    source = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_text(package, template))
    html = source.render(style=Markup(style), style_hash=Markup(digest), **values)
    return html.encode("utf-8", "backslashreplace")


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
