"""Each command as it is typed, with good and with bad arguments."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.support import CONFIG, CORPUS, rows, run_command


def test_the_command_decode_writes_sound_of_the_clips_length(demo: Path, tmp_path: Path):
    row = rows(demo)[0]
    sound = tmp_path / "a.wav"
    result = run_command("decode", str(demo), "--id", row["id"], "--num-quantizers", "8", "-o", str(sound))
    assert result.returncode == 0, result.stderr
    info = soundfile.info(sound)
    assert (info.frames, info.samplerate) == (row["num_samples"], 24000)


def test_decode_says_why_a_rejected_clip_has_no_sound(demo: Path, tmp_path: Path):
    reject = rows(demo, "rejects")[0]
    result = run_command("decode", str(demo), "--id", reject["id"], "-o", str(tmp_path / "a.wav"))
    assert result.returncode == 2
    assert reject["message"] in result.stderr


def test_status_tells_how_far_an_output_is(demo: Path, inventory: list[dict[str, Any]]):
    result = run_command("status", str(demo), "--json")
    figures = json.loads(result.stdout)
    assert figures["complete"]
    assert figures["shards_committed"] == figures["shards_planned"]
    assert figures["clips"] + figures["rejects"] == len(inventory)
    assert run_command("status", str(demo.parent)).returncode == 2


def test_the_command_encode_makes_a_dataset_without_ray(tmp_path: Path):
    clips = [str(CORPUS / "folder" / "librivox" / name) for name in ("0870.wav", "0880.wav")]
    result = run_command("encode", *clips, "-o", str(tmp_path / "codes"), "--model", "cat-tiny")
    assert result.returncode == 0, result.stderr
    assert sorted(row["key"] for row in rows(tmp_path / "codes")) == ["0870.wav", "0880.wav"]


def test_plan_estimates_what_the_run_then_makes(demo: Path):
    result = run_command("plan", CONFIG, "input.clips_per_shard=10")
    assert result.returncode == 0, result.stderr
    figures = {line.split()[0]: line.split() for line in result.stdout.splitlines() if "about" in line}
    made = sum(row["duration"] for row in rows(demo)) / 3600
    assert made * 0.6 < float(figures["hours"][-1]) < made * 1.7
    written = sum(path.stat().st_size for path in (demo / "data").rglob("*.parquet")) / 1000
    assert figures["output"][-1] == "kB"
    assert written * 0.6 < float(figures["output"][-2]) < written * 1.7


def test_the_command_agreement_prints_every_layer(tmp_path: Path):
    sound = next((CORPUS / "folder").rglob("librivox/*.wav"))
    result = run_command("agreement", str(sound), "--model", "cat-tiny", "--dtype", "bfloat16", "--num-quantizers", "8")
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"\d+\.\d{3} %", result.stdout)) == 8 + 2
    assert "| cat-tiny (bfloat16) | cat-tiny | 8 |" in result.stdout
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    refused = run_command("agreement", str(tmp_path / "broken.wav"), "--model", "cat-tiny")
    assert refused.returncode == 2
    assert "broken.wav" in refused.stderr


def test_another_precision_into_the_same_output_is_refused_by_name(demo: Path):
    same = ["tokenize", CONFIG, f"output.uri={demo}", "input.clips_per_shard=10"]
    result = run_command(*same, "model.dtype=bfloat16", "prepare.max_seconds=20")
    assert result.returncode == 2
    assert "model.dtype: the output has 'float32', this run 'bfloat16'" in result.stderr
    assert "prepare.max_seconds" in result.stderr


def test_a_folder_with_other_files_is_not_written_into(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    result = run_command("tokenize", CONFIG, f"output.uri={tmp_path}")
    assert result.returncode == 2
    assert "holds other files" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_hub_that_cannot_be_reached_gets_both_remedies(tmp_path: Path):
    result = run_command("tokenize", CONFIG, f"output.uri={tmp_path / 'codes'}", "model.name=OpenMOSS-Team/No-Such")
    assert result.returncode == 2
    assert "local folder" in result.stderr
    assert "cat-speech" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tokenize", "nothing.yaml"], "nothing.yaml: cannot read"),
        (
            ["tokenize", CONFIG, "model.dtypo=float32"],
            "model.dtypo: unknown key; allowed here: name, codec, revision, dtype",
        ),
        (["tokenize", CONFIG, "model.dtype=float16"], "model.dtype: Input should be 'auto', 'float32' or 'bfloat16'"),
        (["tokenize", CONFIG, "model.num_quantizers=33"], "model.num_quantizers: 33, but cat-speech has 32"),
        (["tokenize", CONFIG, "input.splits.train=[nowhere/*.wav]"], "nowhere/*.wav: nothing there"),
        (["agreement", "--model", "cat-tiny", "nothing.wav"], "nothing.wav: nothing there"),
        (["plan", CONFIG, "dtype"], "an override is section.key=value"),
    ],
)
def test_bad_usage_ends_with_status_2_and_names_the_key(arguments: list[str], complaint: str, tmp_path: Path):
    overrides = [f"output.uri={tmp_path / 'o'}"] if CONFIG in arguments else []
    result = run_command(*arguments, *overrides)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
