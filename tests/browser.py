"""The headless Chromium of the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from scripts.install_browser import BROWSER


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """Running while the block does."""
    assert BROWSER.exists(), "no browser: run python scripts/install_browser.py"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER)
        yield browser
        browser.close()
