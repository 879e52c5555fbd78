"""A test that starts a process is slow, whether or not somebody remembered to say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import CONFIG, ROOT, run_command
from tests.tiers import starts_processes

TESTS = """
import subprocess
from pathlib import Path
import pytest

def helper():
    subprocess.run(["true"])

@pytest.fixture
def server():
    yield helper()

def test_calculates():
    assert Path("a").name == "a"

def test_starts_a_process_by_a_helper():
    helper()

def test_starts_a_process_by_a_fixture(server):
    pass

def test_starts_a_process_in_a_way_that_nobody_sees():
    __import__("subprocess").run(["true"])
"""


def run_tests(folder: Path, *options: str) -> str:
    (folder / "test_of_a_newcomer.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.tiers", "-p", "no:cacheprovider", "-q", "-rA", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_what_reaches_a_process_is_slow_and_what_hides_one_fails(tmp_path: Path):
    said = run_tests(tmp_path, "-m", "not slow")
    assert "1 failed, 1 passed, 2 deselected" in said
    assert "PASSED test_of_a_newcomer.py::test_calculates" in said
    assert "FAILED test_of_a_newcomer.py::test_starts_a_process_in_a_way_that_nobody_sees" in said
    assert "a fast test starts a process" in said
    assert "2 passed, 2 deselected" in run_tests(tmp_path, "-m", "slow")


def test_a_command_is_seen_through_the_helper_that_runs_it():
    def types_a_command() -> None:
        run_command("plan", CONFIG)

    def calculates() -> None:
        pytest.approx(len(CONFIG))

    assert starts_processes([types_a_command])
    assert not starts_processes([calculates])
