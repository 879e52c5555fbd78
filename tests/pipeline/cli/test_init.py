"""`moss-tok init`: the examples of the project, as files to change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.cli.main import main
from tests.support import CORPUS, ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_a_name_each_example_is_listed_with_its_purpose(capsys: pytest.CaptureFixture[str]):
    assert main(["init"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [path.stem for path in CONFIGS]
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_example_is_written_as_it_is(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["init", path.stem, "-o", "mine.yaml"]) == 0
    assert Path("mine.yaml").read_bytes() == path.read_bytes()
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[0] == "moss-tok"
    assert command[1] == {"export": "export", "evaluate": "evaluate"}.get(path.stem.partition("_")[0], "tokenize")


def test_the_demo_comes_with_its_audio(folder: Path):
    assert main(["init", "demo"]) == 0
    assert files(folder / "demo" / "corpus") == files(CORPUS)
    assert sorted(os.listdir(folder)) == ["demo", "demo.yaml"]


def test_what_is_there_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]):
    readme = folder / "demo" / "corpus" / "README.md"
    readme.parent.mkdir(parents=True)
    readme.write_text("mine")
    assert main(["init", "demo"]) == 0
    assert readme.read_text() == "mine"
    assert main(["init", "demo"]) == 2
    assert "demo.yaml exists" in capsys.readouterr().err


def test_a_name_that_is_none_gets_the_names(capsys: pytest.CaptureFixture[str]):
    assert main(["init", "dmeo"]) == 2
    assert "there are audioset, common_voice" in capsys.readouterr().err
