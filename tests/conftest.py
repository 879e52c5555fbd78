"""Fixtures that the end-to-end tests share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import CORPUS


@pytest.fixture(scope="session")
def inventory() -> list[dict[str, Any]]:
    """One entry for each clip of the demo corpus, with what must become of it."""
    return [json.loads(line) for line in (CORPUS / "inventory.jsonl").read_text().splitlines()]
