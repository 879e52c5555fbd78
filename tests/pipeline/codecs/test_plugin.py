"""A codec of another package: installed as the documentation says, and run by the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from tests.support import ROOT, rows, run_command

PLUGIN = ROOT / "examples" / "codec_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds the installed plug-in."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")  # a build leaves files beside its source
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder / "site")]
    command = [sys.executable, "-m", "pip", "install", *options, str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True)
    return {"PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "levels", "sample_rate": 8000, "levels": 16}))
    coarse = np.linspace(-1, 1, 16, dtype=np.float32)
    save_file({"levels": np.stack([coarse, coarse / 16])}, folder / "model.safetensors")
    return folder


def test_the_example_is_short_and_runs_through_the_commands(
    installed: dict[str, str], model: Path, tmp_path: Path
) -> None:
    assert len((PLUGIN / "levels_codec.py").read_text().splitlines()) < 60
    samples = (9000 * np.sin(np.arange(4000) / 9)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 8000, "PCM_16")
    output = str(tmp_path / "codes")
    made = run_command("encode", str(tmp_path / "a.wav"), "-o", output, "--model", str(model), environment=installed)
    assert made.returncode == 0, made.stderr
    (row,) = rows(tmp_path / "codes")
    sound = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    levels = np.linspace(-1, 1, 16, dtype=np.float32)
    assert row["codes_00"] == np.searchsorted((levels[1:] + levels[:-1]) / 2, sound).tolist()
    for command in (
        ("verify", output, "--all"),
        ("decode", output, "--id", row["id"], "-o", str(tmp_path / "b.wav")),
        ("decode", output, "--id", row["id"], "-o", str(tmp_path / "c.wav"), "--num-quantizers", "1"),
        ("report", output, "-o", str(tmp_path / "report.html"), "--clips", "1"),
    ):
        result = run_command(*command, environment=installed)
        assert result.returncode == 0, result.stderr
    fine, coarse = (soundfile.read(tmp_path / name)[0] for name in ("b.wav", "c.wav"))
    assert np.abs(fine - sound).max() < 0.01 < np.abs(coarse - sound).max() < 0.07


def test_without_the_package_the_model_is_refused_with_what_to_do(model: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800, np.int16), 8000, "PCM_16")
    made = run_command("encode", str(tmp_path / "a.wav"), "-o", str(tmp_path / "codes"), "--model", str(model))
    assert made.returncode != 0
    assert "install the package that offers it" in made.stderr
    assert "Traceback" not in made.stderr
