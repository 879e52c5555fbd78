"""The command and the jobs as they are typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lhotse import CutSet

from pipeline.export.config import load_export_config
from tests.support import DEADLINE_SECONDS, ROOT, run_command

GIVEN = {"dataset": {"uri": "a"}, "export": {"to": "nemo", "uri": "b"}}


def test_the_command_exports_and_says_what_it_left_out(dataset: Path, tmp_path: Path):
    arguments = ["export", str(dataset), "--to", "moss-tts", "-o", str(tmp_path / "tts")]
    result = run_command(*arguments, "--set", "filters.min_seconds=1", "references.enabled=true")
    assert result.returncode == 0, result.stderr
    for part in ("rows", "with a reference", "left out", "no_text", "too_short", "files"):
        assert part in result.stdout
    assert "exporting: 8 of 8 shards" in result.stderr
    again = run_command(*arguments)
    assert again.returncode == 2
    assert "was made with other settings" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize(("to", "complaint"), [("nemo", "filters.min_second: unknown key; allowed here: min_seconds")])
def test_a_misspelt_key_is_named(dataset: Path, tmp_path: Path, to: str, complaint: str):
    result = run_command("export", str(dataset), "--to", to, "-o", str(tmp_path / "a"), "--set", "filters.min_second=1")
    assert result.returncode == 2
    assert complaint in result.stderr
    assert not (tmp_path / "a").exists()


def run_job(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"jobs/{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)


def test_the_tts_job_begins_with_its_configuration(dataset: Path, tmp_path: Path):
    result = run_job("prepare_tts.py", "--dataset", str(dataset), "--out", str(tmp_path / "tts"))
    assert result.returncode == 0, result.stderr
    assert "too_long" in result.stdout
    assert "with a reference" in result.stdout
    assert list((tmp_path / "tts" / "train").glob("*.jsonl"))


def test_the_asr_job_writes_eight_layers_that_lhotse_reads(dataset: Path, tmp_path: Path):
    result = run_job(
        "prepare_asr.py", "--dataset", str(dataset), "--out", str(tmp_path / "shar"), "--set", "asr.buckets=2"
    )
    assert result.returncode == 0, result.stderr
    cuts = list(CutSet.from_shar(in_dir=tmp_path / "shar" / "train" / "bucket_01"))
    assert cuts
    assert {cut.load_codes().shape[1] for cut in cuts} == {8}


@pytest.mark.parametrize("name", ["export_tts.yaml", "export_asr.yaml"])
def test_the_configurations_that_come_with_the_project_can_be_used(name: str):
    path = ROOT / "configs" / name
    config = load_export_config(path, [], GIVEN)
    document = yaml.safe_load(path.read_text())
    assert document
    for section, keys in document.items():
        for key, value in keys.items():
            assert getattr(getattr(config, section), key) == value
