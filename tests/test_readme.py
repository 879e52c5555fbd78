"""What the README tells a newcomer to type is typed here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import metadata, version
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
    assert [language for language, _ in page] == ["bash", "python", "bash", "bash", "bash", "python"]
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


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_every_link_leads_to_a_file(page: str):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
        assert (folder / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_make_targets_exist(page: str):
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^|`)make (\w+)", (ROOT / page).read_text(), flags=re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_continuous_integration_runs_the_commands_of_the_page_and_nothing_else():
    commands = re.findall(r"^make \w+$", README, flags=re.MULTILINE)
    assert commands == ["make demo", "make test"]
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in script if line and not line.startswith("#")] == [
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        "make test",
    ]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    for job in workflow["jobs"].values():
        assert [step["run"] for step in job["steps"] if "run" in step] == commands


def test_the_citation_and_the_package_have_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version("moss-tok")
    assert citation["license"] == metadata("moss-tok")["License-Expression"]


def test_the_hooks_before_a_commit_are_the_linters_of_make_check():
    """With their own arguments for a list of files; both come from .venv, in the versions of constraints.txt."""
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {hook["entry"].split(" --")[0] for hook in repo["hooks"]}
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    checked = {line.strip().replace("$(BIN)", ".venv/bin").split(" --")[0] for line in recipe.splitlines()}
    assert tools == {line.removesuffix(" .") for line in checked}
