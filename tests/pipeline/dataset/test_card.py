"""The dataset card: what it states is what the output holds, and loading works from it alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.read import random_output
from pipeline import schema
from pipeline.config import CardConfig
from pipeline.dataset.card import column_rows, dataset_card
from pipeline.dataset.dataset import read_output
from pipeline.dataset.opening import open_output
from pipeline.dataset.statistics import DURATION_EDGES, sample_statistics
from tests.support import demo_config, rows, tokenize_in_process

SPLITS = "input.splits={train: [demo/corpus/folder/manifest.jsonl], test: ['demo/corpus/parquet/*.parquet']}"
ABOUT = ("card.license=cc-by-4.0", "card.pretty_name='A: name'", "card.source=https://example.org/")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of the demo corpus, with a card that was told its licence."""
    folder = tmp_path_factory.mktemp("card") / "codes"
    tokenize_in_process(demo_config(folder, SPLITS, *ABOUT))
    return folder


def front_matter(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((output / "README.md").read_text().split("---\n")[1])
    return document


@pytest.mark.slow
def test_load_dataset_finds_the_splits_from_the_card_alone(output: Path, tmp_path: Path):
    loaded = datasets.load_dataset(str(output), cache_dir=str(tmp_path))
    assert {split: len(part) for split, part in loaded.items()} == {
        split: sum(pq.read_metadata(path).num_rows for path in output.glob(f"data/{split}/*.parquet"))
        for split in ("train", "test")
    }


def test_the_card_states_model_weights_precision_and_preprocessing(output: Path):
    card = (output / "README.md").read_text()
    record = read_output(str(output)).record
    for fact in (
        record.model.weights_sha256,
        record.fingerprint,
        "cat-speech",
        "float32",
        "max_seconds",
        "CC-BY-SA-3.0",
    ):
        assert fact in card
    assert "/tmp" not in card
    assert str(output) not in card


def test_figures_are_those_of_each_split(output: Path):
    card = (output / "README.md").read_text()
    for split in ("train", "test"):
        made = [row for path in output.glob(f"data/{split}/*") for row in pq.read_table(path).to_pylist()]
        refused = sum(pq.read_metadata(path).num_rows for path in output.glob(f"rejects/{split}/*"))
        hours = sum(row["duration"] for row in made) / 3600
        assert f"| {split} | {len(made)} | {hours:.3f} | {refused} |" in card


def test_what_the_configuration_says_of_the_data_is_in_the_front_matter(output: Path):
    header = front_matter(output)
    assert (header["license"], header["pretty_name"]) == ("cc-by-4.0", "A: name")
    languages = {row["language"] for row in rows(output)} - {None}
    assert header["language"] == sorted(languages)
    assert len(languages) > 1
    assert "https://example.org/" in (output / "README.md").read_text()


def test_a_finished_output_gets_another_card_and_keeps_its_data(output: Path):
    before = {path: path.stat().st_mtime_ns for path in output.glob("data/*/*")}
    config = demo_config(output, SPLITS, "card.license=cc0-1.0", "card.language=ru")
    open_output(config).finish()
    header = front_matter(output)
    assert (header["license"], header["language"]) == ("cc0-1.0", ["ru"])
    assert {path: path.stat().st_mtime_ns for path in output.glob("data/*/*")} == before
    open_output(demo_config(output, SPLITS, *ABOUT)).finish()


def test_a_card_without_licence_says_how_to_state_it(output: Path):
    read_output(str(output)).finish()
    card = (output / "README.md").read_text()
    assert "set `card.license`" in card
    assert "license" not in front_matter(output)
    open_output(demo_config(output, SPLITS, *ABOUT)).finish()


def test_the_card_describes_every_column_and_its_unit(output: Path):
    card = (output / "README.md").read_text()
    columns = [*schema.definition(schema.CODES)["columns"], schema.layer_definition(0, 1024)]
    assert column_rows(columns) in card
    fields = pq.read_schema(next(output.glob("data/train/*.parquet")))
    for column in columns:
        line = f"| `{column['name']}` | {column['type']} | {column.get('unit', '')} | {column['description']} |"
        assert line in card
        notes = fields.field(column["name"]).metadata
        assert notes[b"description"].decode() == column["description"]
        assert notes.get(b"unit", b"").decode() == column.get("unit", "")


@pytest.mark.slow
def test_a_split_without_a_committed_shard_is_left_out_of_the_loading(tmp_path: Path):
    config = demo_config(tmp_path / "codes", SPLITS)
    begun = open_output(config)
    tokenize_in_process(demo_config(tmp_path / "codes", SPLITS))
    for spec in begun.specs:
        if spec.split == "test":
            (tmp_path / f"codes/_moss_tok/shards/{spec.shard_id}.json").unlink()
    open_output(config).finish()
    assert [entry["split"] for entry in front_matter(tmp_path / "codes")["configs"][0]["data_files"]] == ["train"]
    assert "**Incomplete:**" in (tmp_path / "codes" / "README.md").read_text()
    assert set(datasets.load_dataset(str(tmp_path / "codes"), cache_dir=str(tmp_path / "cache"))) == {"train"}


def test_statistics_count_what_is_in_the_sampled_shards(tmp_path: Path):
    codes = Path(random_output(tmp_path / "codes", shards=3, clips=60, frames=60))
    paths = sorted(map(str, codes.glob("data/train/*")))
    seen = sample_statistics(paths, 32, 1024)
    table = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert seen.clips == len(table) == 180
    expected = np.histogram([row["duration"] for row in table], [*DURATION_EDGES, np.inf])[0]
    assert seen.durations == tuple(expected)
    counts = np.bincount(np.concatenate([row["codes_05"] for row in table]), minlength=1024)
    share = counts[counts > 0] / counts.sum()
    assert seen.entropy[5] == pytest.approx(-(share * np.log2(share)).sum())
    assert 9.9 < seen.entropy[5] < 10
    assert sample_statistics([], 32, 1024).clips == 0


def test_a_card_without_sampled_clips_has_no_plots(output: Path):
    finished = read_output(str(output))
    none = sample_statistics([], 32, 1024)
    card = dataset_card(finished.record, replace(finished.totals(), rows=0), 1, CardConfig(), none)
    assert "```text" not in card


def test_text_plots_end_at_their_largest_bar(output: Path):
    card = (output / "README.md").read_text()
    lengths, entropy = re.findall(r"```text\n(.*?)\n```", card, flags=re.DOTALL)
    bars = [line.count("#") for line in lengths.splitlines()]
    assert max(bars) == 40
    assert sum(int(line.split()[-1].replace(",", "")) for line in lengths.splitlines()) == len(rows(output))
    assert len(entropy.splitlines()) == 32
    frames = sum(row["num_frames"] for row in rows(output))
    assert f"from {frames:,} frames, so few that it comes out too small" in card


def test_the_card_of_an_untrained_model_says_so_and_names_no_licence(output: Path):
    record = read_output(str(output)).record
    model = replace(record.model, name="cat-tiny", codec=replace(record.model.codec, trained=False))
    found = read_output(str(output))
    card = dataset_card(replace(record, model=model), found.totals(), 1, CardConfig(), sample_statistics([], 32, 1024))
    assert "untrained model" in card
    assert "CC-BY-SA" not in card
