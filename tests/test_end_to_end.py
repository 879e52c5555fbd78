"""The whole journey on real audio, with a real Ray: each clip a row or a reject, and what a row holds."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch

from moss_tok import MossAudioTokenizerModel
from moss_tok.audio import REASONS, resample
from pipeline.steps.reject_reasons import PREPARE_REASONS, READ_REASONS
from tests.support import CORPUS, data_files, demo_config, rows, tokenize_in_process


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset, made in this process without Ray, one shard after the other and in batches of another size."""
    output = tmp_path_factory.mktemp("oracle") / "codes"
    config = demo_config(output, "input.clips_per_shard=10", "batch.max_frames=200")
    tokenize_in_process(config)
    return output


def test_every_clip_is_a_row_or_a_reject_and_none_is_there_twice(demo: Path, inventory: list[dict[str, Any]]):
    def place(source: str, key: str) -> tuple[str, str]:
        packing = Path(source).relative_to(CORPUS).parts[0]
        return packing, key

    expected = Counter((entry["packing"], entry["key"], entry["expected"]) for entry in inventory)
    found = Counter((*place(row["source"], row["key"]), "row") for row in rows(demo))
    found += Counter((*place(row["source"], row["key"]), "reject") for row in rows(demo, "rejects"))
    assert found == expected


def test_rejects_have_a_reason_of_the_closed_list_and_say_what_is_wrong(demo: Path):
    known = {**READ_REASONS, **PREPARE_REASONS, **REASONS}
    for reject in rows(demo, "rejects"):
        assert reject["reason"] in known
        assert reject["reason"] != "crashed"
        assert len(reject["message"]) > 10


def test_two_actors_write_the_bytes_that_one_process_writes(demo: Path, oracle: Path):
    distributed, plain = data_files(demo), data_files(oracle)
    assert len(plain) > 8
    assert distributed == plain


def test_text_and_metadata_follow_their_clips(demo: Path, inventory: list[dict[str, Any]]):
    with_text = {entry["key"] for entry in inventory if entry["has_text"] and entry["expected"] == "row"}
    assert {row["key"] for row in rows(demo) if row["text"]} == with_text
    russian = next(row for row in rows(demo) if row["language"] == "ru")
    assert any("CYRILLIC" in unicodedata.name(letter) for letter in russian["text"])
    assert any(row["labels"] for row in rows(demo))
    assert any(row["speaker_id"] for row in rows(demo))
    assert all(json.loads(row["metadata"]).keys().isdisjoint(("language", "speaker", "labels")) for row in rows(demo))


def test_datasets_loads_the_output_in_one_line(demo: Path, inventory: list[dict[str, Any]], tmp_path: Path):
    dataset = datasets.load_dataset(str(demo), split="train", cache_dir=str(tmp_path))
    assert len(dataset) == sum(entry["expected"] == "row" for entry in inventory)
    assert dataset.features["codes_31"] == datasets.List(datasets.Value("int16"))
    lengths = {len(dataset[0][f"codes_{layer:02d}"]) for layer in range(32)}
    assert lengths == {dataset[0]["num_frames"]}


def test_a_row_decodes_to_exactly_its_samples(demo: Path):
    model = MossAudioTokenizerModel.from_pretrained("cat-speech")
    for row in rows(demo)[:6]:
        codes = torch.tensor([row[f"codes_{layer:02d}"] for layer in range(32)])
        waveform = model.batch_decode([codes]).audio[0, :, : row["num_samples"]]
        assert waveform.shape == (1, row["num_samples"])
        assert row["num_frames"] == -(-row["num_samples"] // 1920)
        assert torch.isfinite(waveform).all()


def test_the_codes_of_a_row_are_those_of_its_clip_encoded_alone(demo: Path):
    model = MossAudioTokenizerModel.from_pretrained("cat-speech")
    row = next(row for row in rows(demo) if row["source"].endswith("librivox/0870.wav"))
    waveform, rate = soundfile.read(row["source"], dtype="float32")
    assert rate == 16000
    alone = model.encode(torch.from_numpy(resample(waveform[None], rate, 24000))[None]).audio_codes[:, 0]
    written = np.array([row[f"codes_{layer:02d}"] for layer in range(32)])
    assert np.array_equal(alone.numpy(), written)
    assert all(len(np.unique(layer)) > 10 for layer in written), "codes that hardly vary could not show a difference"
