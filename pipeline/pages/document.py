"""Pages from templates: one HTML document that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup


def render_page(package: str, template: str, **values: Any) -> bytes:
    """A template of a package, filled in. It gets `style`, the style of all pages, and `style_hash` for its policy,
    which allows nothing from outside, so that opening a page asks nobody else anything.

    A template can import parts of another: "PACKAGE/NAME".
    """
    style = _text("pipeline.pages", "page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    page = _templates().get_template(f"{package}/{template}")
    html = page.render(style=Markup(style), style_hash=Markup(digest), **values)
    return html.encode("utf-8", "backslashreplace")


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(lambda name: _text(*name.split("/")))
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader)


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
