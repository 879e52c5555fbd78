"""Splits depend on the row alone, keep speakers apart, and are as large as their shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.export.config import SplitConfig
from pipeline.export.splits import split_of
from tests.pipeline.export.test_filters import ROW

SHARES = {"train": 8.0, "validation": 1.0, "test": 1.0}


def test_without_shares_the_datasets_splits_stay():
    assert split_of(ROW, SplitConfig()) == "train"
    assert split_of(replace(ROW, split="other"), SplitConfig(by="speaker")) == "other"


@pytest.mark.parametrize("by", ["clip", "speaker"])
def test_splits_are_as_large_as_their_shares(by: Any):
    config = SplitConfig(shares=SHARES, by=by)
    rows = [replace(ROW, id=f"clip {number}", speaker_id=f"speaker {number}") for number in range(4000)]
    sizes = Counter(split_of(row, config) for row in rows)
    assert sizes.keys() == SHARES.keys()
    assert all(abs(sizes[name] / 4000 - share / 10) < 0.02 for name, share in SHARES.items())
    again = Counter(split_of(row, SplitConfig(shares=SHARES, by=by, seed=1)) for row in rows)
    assert again != sizes


def test_a_split_is_the_same_forever():
    """A change of the hash would move clips between training and test from one release to the next."""
    config = SplitConfig(shares=SHARES)
    splits = [split_of(replace(ROW, id=f"{number:016x}-00000000"), config) for number in range(24)]
    assert "".join(str(split)[0] for split in splits) == "ttttttvtttttvtvttttttttt"


def test_all_clips_of_a_speaker_are_in_one_split_and_unknown_speakers_in_none():
    config = SplitConfig(shares=SHARES, by="speaker")
    splits = {split_of(replace(ROW, id=f"clip {number}"), config) for number in range(50)}
    assert len(splits) == 1
    assert split_of(replace(ROW, speaker_id=None), config) is None


def test_an_export_by_speaker_keeps_them_apart_and_counts_clips_without_one(
    export: Callable[..., Any], json_lines: Callable[..., Any]
):
    shares = "splits.shares={train: 2, validation: 1, test: 1}"
    folder, report = export("nemo", shares, "splits.by=speaker", "asr.codes=false")
    speakers = {split: {record["speaker"] for record in json_lines(folder / split)} for split in report.written}
    assert len(speakers) > 1
    assert sum(map(len, speakers.values())) == len(set().union(*speakers.values()))
    assert report.removed["no_speaker"] > 0
