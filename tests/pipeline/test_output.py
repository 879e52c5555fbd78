"""An output that is taken up again: what of its record and its plan is lost or damaged is named, with the remedy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.layout import Layout
from pipeline.output import read_output
from pipeline.repair import repair
from pipeline.status import Observer
from tests.pipeline.conftest import Tokenized


@pytest.fixture
def layout(tokenized: Tokenized, tmp_path: Path) -> Layout:
    """Of an output that a test may spoil."""
    return Layout(str(shutil.copytree(tokenized.output, tmp_path / "codes")))


@pytest.mark.parametrize("use", [read_output, repair, Observer])
def test_a_plan_that_is_gone_is_named_with_the_remedy(layout: Layout, use: Callable[[str], object]):
    Path(layout.plan).unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(layout.plan)}: .*put it back from a copy"):
        use(layout.root)


@pytest.mark.parametrize("name", ["run", "plan"])
def test_a_flipped_record_or_plan_is_named_with_the_remedy(layout: Layout, name: str):
    path = Path(getattr(layout, name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: .*put it back from a copy"):
        read_output(layout.root)
