"""What the README tells a newcomer to type is typed here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config import parse_config
from tests.support import DEADLINE_SECONDS, ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's files in which nothing has been made yet."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "demo", "jobs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_the_shell_and_python_blocks_run_in_the_order_of_the_page(newcomer: Path):
    page = re.findall(r"^```(bash|python)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert [language for language, _ in page] == ["bash", "python", "bash", "python"]
    for language, text in page:
        # The released weights are not on every machine; the embedded codec has the same interface and lengths.
        script = text.replace("OpenMOSS-Team/MOSS-Audio-Tokenizer", "cat-tiny")
        command = ["bash", "-euo", "pipefail", "-c", script] if language == "bash" else [sys.executable, "-c", script]
        result = run(command, newcomer)
        assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
    assert (newcomer / "clip.wav").stat().st_size > 1000


def test_the_python_blocks_of_the_api_page_run(newcomer: Path):
    page = (ROOT / "docs" / "api.md").read_text()
    scripts = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        result = run([sys.executable, "-c", script], newcomer)
        assert result.returncode == 0, f"{script}\n{result.stderr}"


def test_the_configuration_on_the_page_is_valid():
    (text,) = blocks("yaml")
    config = parse_config(yaml.safe_load(text))
    assert config.model.dtype == "bfloat16"


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_link_leads_to_a_file(page: str):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
        assert (folder / target).exists(), target


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_continuous_integration_runs_the_test_command_of_the_page():
    assert "\nmake test\n" in README
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
