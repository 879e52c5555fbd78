"""Every rule removes what it says, the first rule that a row breaks counts, and lists are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.export.config import FilterConfig
from pipeline.export.filters import Filters
from pipeline.export.rows import ExportRow

ROW = ExportRow(
    id="0123456789abcdef-00000001",
    split="train",
    audio="a.wav",
    start=None,
    num_frames=25,
    num_samples=48_000,
    sample_rate=24_000,
    clipping=0.01,
    silence=0.25,
    audio_xxh3="00",
    text="twenty characters ok",
    language="en",
    speaker_id="ann",
    labels=None,
    metadata="{}",
    codes=np.zeros((0, 25), np.int16),
)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({}, None),
        ({"min_seconds": 2.0, "max_seconds": 2.0}, None),
        ({"min_seconds": 2.1}, "too_short"),
        ({"max_seconds": 1.9}, "too_long"),
        ({"languages": ("en", "fr")}, None),
        ({"languages": ("fr",)}, "other_language"),
        ({"max_silence": 0.25}, None),
        ({"max_silence": 0.2}, "silence"),
        ({"max_clipping": 0.0}, "clipping"),
        ({"min_characters_per_second": 10.0, "max_characters_per_second": 10.0}, None),
        ({"min_characters_per_second": 10.1}, "few_characters"),
        ({"max_characters_per_second": 9.9}, "many_characters"),
        ({"max_seconds": 1.0, "languages": ("fr",), "max_silence": 0.0}, "too_long"),
    ],
)
def test_each_rule_removes_what_it_says(rules: dict[str, Any], reason: str | None):
    assert Filters(FilterConfig(**rules)).reason(ROW) == reason


@pytest.mark.parametrize(("holds", "reason"), [(True, None), (False, "where"), (None, "where_null")])
def test_a_condition_without_a_value_is_another_reason_than_one_that_does_not_hold(
    holds: bool | None, reason: str | None
):
    assert Filters(FilterConfig()).reason(replace(ROW, where=holds)) == reason


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_text_is_missing_only_where_it_is_needed(text: str | None):
    row = replace(ROW, text=text)
    rules = FilterConfig(min_characters_per_second=1.0)
    assert Filters(rules).reason(row) is None
    assert Filters(rules, need_text=True).reason(row) == "no_text"
    assert Filters(FilterConfig(require_text=True)).reason(row) == "no_text"


def test_reject_lists_are_files_of_ids(tmp_path: Path):
    (tmp_path / "a.txt").write_text(f"\ufeff{ROW.id}\r\n\nother\n")
    (tmp_path / "b.txt").write_text("third")
    filters = Filters(FilterConfig(reject_lists=(str(tmp_path / "a.txt"), str(tmp_path / "b.txt")), max_seconds=1.0))
    assert filters.reason(ROW) == "reject_list"
    assert filters.reason(replace(ROW, id="fourth")) == "too_long"
    (tmp_path / "c.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"c\.bin: a reject list is a text file"):
        Filters(FilterConfig(reject_lists=(str(tmp_path / "c.bin"),)))
    with pytest.raises(FileNotFoundError, match=r"none: filters\.reject_lists names this file"):
        Filters(FilterConfig(reject_lists=(str(tmp_path / "none"),)))


def test_every_row_of_the_demo_corpus_is_written_or_counted(
    export: Callable[..., Any], clips: dict[str, ExportRow], tmp_path: Path
):
    listed = [clip_id for clip_id, row in clips.items() if row.language == "en"][:3]
    (tmp_path / "bad.txt").write_text("\n".join([*listed, "ffffffffffffffff-00000000"]))
    rules = [f"filters.reject_lists=[{tmp_path}/bad.txt]", "filters.min_seconds=1", "filters.languages=[en, fr]"]
    _, report = export("nemo", *rules)
    expected: Counter[str] = Counter()
    for row in clips.values():
        if row.id in listed:
            expected["reject_list"] += 1
        elif row.duration < 1:
            expected["too_short"] += 1
        elif row.language not in ("en", "fr"):
            expected["other_language"] += 1
        elif not row.text:
            expected["no_text"] += 1
        else:
            expected["written"] += 1
    assert min(expected[kind] for kind in ("too_short", "other_language", "written")) > 0
    assert report.written == {"train": expected.pop("written")}
    assert report.removed == dict(expected)
    assert report.unknown_rejects == 1
