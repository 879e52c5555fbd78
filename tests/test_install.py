"""What is installed works without the checkout, and what the pages say about installing is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import CORPUS, DEADLINE_SECONDS, ROOT, rows

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])


def call(folder: Path, *command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what the image is built from: setuptools writes into the folder it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("moss_tok", "pipeline", "schemas", "configs", "demo/corpus"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    call(folder, sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", ".")
    return next((folder / "dist").glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.getinfo(name).file_size for name in archive.namelist() if ".dist-info/" not in name}
    ours = {
        path.relative_to(ROOT).as_posix(): path.stat().st_size
        for package in ("moss_tok", "pipeline", "schemas")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    examples = {"configs": ROOT / "configs", "corpus": CORPUS}  # rglob follows no links
    for name, folder in examples.items():
        for path in folder.rglob("*"):
            if path.is_file():
                ours[f"pipeline/examples/{name}/{path.relative_to(folder).as_posix()}"] = path.stat().st_size
    assert held == ours


def test_the_demo_runs_from_the_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path):
    """In an environment that has the wheel, and the dependencies from here."""
    venv.create(tmp_path / "venv", symlinks=True)
    program = tmp_path / "venv" / "bin"
    here = ("--no-index", "--no-deps")
    call(tmp_path, sys.executable, "-m", "pip", "--python", program / "python", "install", "-q", *here, wheel)
    site = Path(
        call(tmp_path, program / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    work.mkdir()
    where = "import moss_tok, pipeline, schemas; print(moss_tok.__file__, pipeline.__file__, schemas.__file__)"
    assert all(path.startswith(str(site)) for path in call(work, program / "python", "-c", where).split())
    assert "moss-tok tokenize demo.yaml" in call(work, program / "moss-tok", "init", "demo")
    one = ["input.splits.train=[demo/corpus/webdataset/*.tar]", "model.name=cat-tiny", "cluster.actors=1"]
    call(work, program / "moss-tok", "tokenize", "demo.yaml", *one)
    assert len(rows(work / "out" / "demo")) > 20


def test_the_page_of_extras_lists_each():
    page = (ROOT / "docs" / "install.md").read_text().partition("## Extras")[2].partition("\n## ")[0]
    named = re.findall(r"^\| (`.*?`) \|", page, flags=re.MULTILINE)
    assert {extra for cell in named for extra in re.findall(r"`(\w+)`", cell)} == EXTRAS


def test_every_extra_that_a_page_or_a_message_names_exists():
    pages = [ROOT / "README.md", ROOT / "deploy" / "Dockerfile", *(ROOT / "docs").rglob("*.md")]
    named = {}
    for path in [*pages, *(ROOT / "pipeline").rglob("*.py"), *(ROOT / "moss_tok").rglob("*.py")]:
        text = path.read_text()
        found = [
            extra for group in re.findall(r"(?:moss-tok|'\.|\"\.)\[([\w,]+)\]", text) for extra in group.split(",")
        ]
        named |= dict.fromkeys([*found, *re.findall(r"require\(\"[\w.]+\", \"(\w+)\"\)", text)], path)
    assert {"export", "codecs", "evaluate", "training"} <= set(named)
    assert not set(named) - EXTRAS, named


def test_the_classifiers_begin_with_the_oldest_python():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={named[0]}"
    page = (ROOT / "docs" / "install.md").read_text()
    assert f"Python {named[0]} to {named[-1]}" in page
