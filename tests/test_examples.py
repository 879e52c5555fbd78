"""The examples do what they are there to show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from benchmarks.read import random_output
from examples.train_dataloader import PAD, ResumableBatches, main, make_loader
from pipeline.loading.hf import load_codes
from tests.support import DEADLINE_SECONDS, ROOT

SHARDS, CLIPS = 3, 37
TOTAL = SHARDS * CLIPS


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(random_output(tmp_path_factory.mktemp("output") / "codes", SHARDS, CLIPS, 20))


@pytest.fixture(scope="module")
def dataset(output: Path, tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    datasets.disable_progress_bars()
    return load_codes(str(output), "train", cache_dir=tmp_path_factory.mktemp("cache"))


def sampler(rank: int, even: bool = False) -> ResumableBatches:
    return ResumableBatches(TOTAL, batch_size=5, rank=rank, world_size=2, seed=7, even=even)


def take(dataset: Any, batches: ResumableBatches, count: int | None = None, workers: int = 2) -> list[list[str]]:
    """The ids of the next batches, as a trainer uses them."""
    taken = []
    for batch in islice(make_loader(dataset, batches, workers), count):
        batches.step()
        taken.append(batch["id"])
    return taken


@pytest.mark.slow
def test_two_ranks_of_two_workers_see_every_clip_once_in_an_epoch(dataset: datasets.Dataset):
    seen = Counter(name for rank in range(2) for batch in take(dataset, sampler(rank)) for name in batch)
    assert seen == Counter(dataset["id"])


@pytest.mark.slow
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(dataset: datasets.Dataset):
    for rank in range(2):
        whole = take(dataset, sampler(rank))
        stopped = sampler(rank)
        first = take(dataset, stopped, 4)
        resumed = sampler(rank)
        resumed.load_state_dict(stopped.state_dict())
        assert first + take(dataset, resumed, workers=0) == whole, "even with another number of workers"


def test_epochs_differ_and_are_the_same_in_every_run():
    orders = []
    for _ in range(2):
        batches = sampler(0)
        first = list(batches)
        batches.next_epoch()
        orders.append((first, list(batches)))
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]


def test_even_ranks_have_as_many_batches_and_share_no_clip():
    batches = [list(sampler(rank, even=True)) for rank in range(2)]
    assert [len(part) for part in batches] == [TOTAL // 10] * 2
    positions = [position for part in batches for batch in part for position in batch]
    assert len(set(positions)) == len(positions) == TOTAL // 10 * 10


def test_the_state_of_another_division_is_refused():
    other = ResumableBatches(TOTAL, batch_size=5, rank=0, world_size=3, seed=7, even=False)
    with pytest.raises(ValueError, match="world_size 3, and now it is 2"):
        sampler(0).load_state_dict(other.state_dict())


def test_a_batch_is_padded_behind_its_codes(dataset: datasets.Dataset):
    batch = next(iter(make_loader(dataset, sampler(0), num_workers=0)))
    assert batch["codes"].dtype == torch.int16
    codes = {row["id"]: torch.from_numpy(row["codes"]) for row in dataset}
    for name, padded, frames in zip(batch["id"], batch["codes"], batch["frames"], strict=True):
        assert torch.equal(padded[:, :frames], codes[name])
        assert (padded[:, frames:] == PAD).all()


def test_the_script_stops_and_goes_on(output: Path, tmp_path: Path):
    command = [sys.executable, "examples/train_dataloader.py", str(output), "--num-workers", "0", "--batch-size", "40"]
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    printed = ""
    for _ in range(2):
        result = subprocess.run(
            [*command, "--steps", "2", "--checkpoint", str(tmp_path / "position.json")],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert result.returncode == 0, result.stderr
        printed += result.stdout
    assert [line.partition(":")[0] for line in printed.splitlines()] == [
        f"rank 0 epoch 0 batch {number}" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["nowhere"], "nowhere: no output of moss-tok"),
        (["OUTPUT", "--split", "dev"], "no split dev: it has train"),
        (["OUTPUT", "--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["OUTPUT", "--checkpoint", "POSITION"], "the state was taken with batch_size 5, and now it is 8"),
        (["EMPTY"], "0 clips in split train"),
    ],
)
def test_the_script_refuses_in_one_line(
    output: Path,
    tmp_path: Path,
    options: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "position.0.json").write_text(json.dumps(sampler(0).state_dict() | {"world_size": 1}))
    names = {"OUTPUT": str(output), "POSITION": str(tmp_path / "position.json")}
    if "EMPTY" in options:
        names["EMPTY"] = random_output(tmp_path / "empty" / "codes", 1, 0, 20)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(sys, "argv", ["train_dataloader.py", *(names.get(option, option) for option in options)])
    assert main() == 2
    *_, last = capsys.readouterr().err.splitlines()  # of a bar and the line
    assert last.startswith("train_dataloader: ")
    assert complaint in last


def test_the_python_of_the_page_on_loading_runs(output: Path, tmp_path: Path):
    page = (ROOT / "docs" / "loading.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    script = "\n".join(blocks).replace("OUTPUT", str(output)) + "\nassert row['codes'].shape[0] == 8\n"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
