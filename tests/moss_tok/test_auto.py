"""AutoModel gives our model after one call, and no code of a repo is run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import DEADLINE_SECONDS, ROOT

GOLDEN = ROOT / "tests" / "golden" / "v1_tiny"

PUBLISHED = """
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained({repo!r}, trust_remote_code=True).eval()
wav = torch.randn(1, 1, model.sampling_rate) * 0.1
enc = model.encode(wav, return_dict=True)
dec = model.decode(enc.audio_codes, return_dict=True)
print(type(model).__module__, tuple(enc.audio_codes.shape)[1], dec.audio.shape[-1] >= wav.shape[-1])
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A released folder, whose own code ends any process that runs it."""
    folder = tmp_path / "repo"
    shutil.copytree(GOLDEN, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('remote code was run')")
    return folder


def test_the_published_example_gives_this_codec_and_runs_no_code_of_the_repo(repo: Path) -> None:
    result = run("from moss_tok.auto import register\nregister()\nregister()\n" + PUBLISHED.format(repo=str(repo)))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["moss_tok.codec", "1", "True"]


def test_options_of_loading_are_understood_or_refused(repo: Path) -> None:
    code = f"""
from moss_tok.auto import register
from transformers import AutoModel
register()
print(AutoModel.from_pretrained({str(repo)!r}, dtype="bfloat16", device_map="cpu").dtype)
AutoModel.from_pretrained({str(repo)!r}, output_loading_info=True)
"""
    result = run(code)
    assert result.stdout.split() == ["torch.bfloat16"], result.stderr
    assert "cannot be loaded with output_loading_info" in result.stderr


def test_a_model_that_transformers_ships_itself_is_replaced_only_when_asked(repo: Path) -> None:
    code = """
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from moss_tok.auto import register

class Theirs(PreTrainedConfig):
    model_type = "moss-audio-tokenizer"

Theirs.__module__ = "transformers.models.moss"
AutoConfig.register("moss-audio-tokenizer", Theirs)
try:
    register()
except RuntimeError as error:
    print("replace=True" in str(error))
register(replace=True)
print(type(AutoModel.from_pretrained("moss_tok/models/cat-tiny")).__name__)
"""
    result = run(code)
    assert result.stdout.split() == ["True", "MossAudioTokenizerModel"], result.stderr
