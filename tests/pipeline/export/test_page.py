"""docs/exports.md followed to the letter: its commands and its code, in order, on the demo corpus."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.export import filters
from tests.support import ROOT

PAGE = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")


def blocks() -> Iterator[tuple[str, str]]:
    """The language and the text of each block of code; one that makes what an earlier one uses comes first."""
    found = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    yield from sorted(found, key=lambda block: "ByteLevelBPETokenizer" not in block[1])


@pytest.mark.slow
def test_every_command_and_every_line_of_code_runs(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "demo").symlink_to(dataset)
    for folder in ("jobs", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    ran = 0
    for language, code in blocks():
        if language == "python":
            exec(compile(code, "docs/exports.md", "exec"), {})
            ran += 1
            continue
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["make", "demo"]:
                continue
            if words[0] == "python":
                monkeypatch.setattr(sys, "argv", words[1:])
                with pytest.raises(SystemExit) as ended:
                    runpy.run_path(words[1], run_name="__main__")
                assert ended.value.code == 0, capsys.readouterr().err
            else:
                assert main(words[1:]) == 0, capsys.readouterr().err
            ran += 1
    assert ran == 21


def test_every_reason_is_explained():
    source = "".join(path.read_text() for path in Path(filters.__file__).parent.rglob("*.py"))
    reasons = set(re.findall(r'(?:return|Removed\()\s*"([a-z_]+)"', source))
    assert {"too_short", "no_reference", "longer_than_sequence"} <= reasons
    table = PAGE.partition("| reason |")[2].partition("\n\n")[0]
    assert not [reason for reason in reasons if f"`{reason}`" not in table]
