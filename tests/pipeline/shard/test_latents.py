"""Latents: a column of what was quantized, if asked for, and not a byte of difference if not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from moss_tok import MossAudioTokenizerModel
from pipeline import schema
from pipeline.codecs import CodecError
from pipeline.config import Config, parse_config
from pipeline.dataset import provenance
from pipeline.dataset.dataset import read_output
from pipeline.loading import load_codes
from pipeline.verify.verify import verify
from tests.support import tokenize_in_process

FRAMES = (40, 7, 150)
LONGEST = 1920 * max(FRAMES)


def config_of(folder: Path, name: str, **output: bool) -> Config:
    document = {
        "input": {"splits": {"train": [str(folder / "sound")]}},
        "output": {"uri": str(folder / name), **output},
        "model": {"name": "cat-tiny", "num_quantizers": 4},
        "batch": {"max_frames": 64},  # so that the longest is encoded in parts
    }
    return parse_config(document)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, and what they are tokenized to with latents and without."""
    folder = tmp_path_factory.mktemp("hidden_states")
    (folder / "sound").mkdir()
    draw = np.random.default_rng(0)
    for number, frames in enumerate(FRAMES):
        soundfile.write(folder / "sound" / f"{number}.wav", draw.standard_normal(1920 * frames) * 0.1, 24000)
    tokenize_in_process(config_of(folder, "with", latents=True))
    tokenize_in_process(config_of(folder, "without"))
    return folder


def data_file(output: Path) -> Path:
    (path,) = output.glob("data/train/*.parquet")
    return path


@pytest.mark.slow
def test_latents_are_the_encoders_hidden_states_as_float16(folder: Path):
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny")
    table = pq.read_table(data_file(folder / "with"))
    assert (
        table.schema.field(schema.LATENTS).type
        == schema.codes_schema(read_output(str(folder / "with")).record.code_columns).field(schema.LATENTS).type
    )
    for row in table.to_pylist():
        waveform, _ = soundfile.read(folder / "sound" / row["key"], dtype="float32")
        hidden = model.encode(torch.from_numpy(waveform)).encoder_hidden_states[0].T
        stored = np.array(row[schema.LATENTS], np.float16)
        assert stored.shape == (row["num_frames"], hidden.shape[1])
        assert np.array_equal(stored, hidden.to(torch.float16).numpy())


def test_without_them_nothing_changes(folder: Path):
    with_, without = (pq.read_table(data_file(folder / name)) for name in ("with", "without"))
    assert schema.LATENTS not in without.column_names
    assert with_.drop_columns([schema.LATENTS]).equals(without)
    assert b"latents" not in (folder / "without" / "_moss_tok" / "run.json").read_bytes()
    records = [read_output(str(folder / name)).record for name in ("with", "without")]
    assert records[0].fingerprint != records[1].fingerprint
    assert provenance.RunRecord.from_json(records[0].to_json()) == records[0]


def test_verify_encodes_them_again_and_trainers_load_them(folder: Path, tmp_path: Path):
    findings = verify(str(folder / "with"), sample=None)
    assert findings.differences == []
    assert findings.tallies["encoded again"].looked == len(FRAMES)
    rows = load_codes(str(folder / "with"), "train", 4, columns=("id", schema.LATENTS), cache_dir=tmp_path)
    assert sorted(len(row[schema.LATENTS]) for row in rows) == sorted(FRAMES)
    with pytest.raises(ValueError, match="no column latents"):
        load_codes(str(folder / "without"), "train", 4, columns=(schema.LATENTS,), cache_dir=tmp_path)


def test_a_codec_without_them_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "MOSS", "another")
    with pytest.raises(CodecError, match=r"output\.latents: only MOSS codecs"):
        provenance.record_run(config_of(folder, "other", latents=True))
