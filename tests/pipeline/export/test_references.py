"""A reference is of the same speaker and split, never the clip or a copy of it, and always the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.export.config import ReferenceConfig
from pipeline.export.references import References
from pipeline.export.rows import ExportRow
from tests.pipeline.export.test_filters import ROW


def row(number: int, speaker: str | None = "ann", seconds: float = 2.0, **changes: Any) -> ExportRow:
    codes = np.full((4, 5), number, np.int16)
    fields = {"id": f"clip {number}", "audio": f"{number}.wav", "audio_xxh3": f"{number:032x}", "speaker_id": speaker}
    return replace(ROW, **fields, num_samples=round(seconds * 24_000), codes=codes, **changes)


def paired(rows: Iterable[ExportRow], folder: Path, name: str = "a", **rules: Any) -> dict[str, str | None]:
    rows = list(rows)
    references = References(folder / name, ReferenceConfig(**rules))
    for each in rows:
        references.consider(each.split, each)
    found = {each.id: references.of(each.split, each) for each in rows}
    references.close()
    return {clip_id: reference and reference.id for clip_id, reference in found.items()}


def test_every_clip_gets_another_one_of_its_speaker(tmp_path: Path):
    rows = [row(number, speaker=f"speaker {number % 3}") for number in range(60)]
    pairs = paired(rows, tmp_path)
    speaker_of = {each.id: each.speaker_id for each in rows}
    for clip_id, reference in pairs.items():
        assert reference is not None
        assert reference != clip_id
        assert speaker_of[reference] == speaker_of[clip_id]
    assert len(set(pairs.values())) > 3 * 2, "one reference for all clips would teach one voice prompt"


def test_the_order_of_rows_changes_nothing(tmp_path: Path):
    rows = [row(number, speaker=f"speaker {number % 5}") for number in range(50)]
    assert paired(rows, tmp_path) == paired(reversed(rows), tmp_path, "b")
    assert paired(rows, tmp_path, "c") != paired(rows, tmp_path, "d", seed=1)


def test_a_copy_of_the_same_sound_is_no_reference(tmp_path: Path):
    copies = [row(1), replace(row(2), audio_xxh3=row(1).audio_xxh3)]
    assert paired(copies, tmp_path) == {"clip 1": None, "clip 2": None}
    assert paired([*copies, row(3)], tmp_path, "b")["clip 1"] == "clip 3"


def test_lengths_speakers_and_splits_decide_who_can_be_one(tmp_path: Path):
    rows = [row(1), row(2, seconds=0.5), row(3, seconds=31), row(4, speaker=None), row(5, split="test")]
    assert set(paired(rows, tmp_path).items()) == {
        ("clip 1", None),
        ("clip 2", "clip 1"),
        ("clip 3", "clip 1"),
        ("clip 4", None),
        ("clip 5", None),
    }


def test_only_the_candidates_are_kept_with_their_codes(tmp_path: Path):
    references = References(tmp_path / "a", ReferenceConfig(candidates=3))
    for number in range(200):
        references.consider("train", row(number))
    found = [references.of("train", row(number)) for number in range(200)]
    assert len({reference.id for reference in found if reference}) == 3
    for reference in found:
        assert reference is not None
        assert reference.audio == f"{reference.id.removeprefix('clip ')}.wav"
        np.testing.assert_array_equal(reference.codes, np.full((4, 5), int(reference.id.removeprefix("clip "))))


def test_clips_without_a_reference_are_kept_or_left_out_as_asked(export: Callable[..., Any], tmp_path: Path):
    _, kept = export("moss-tts", "references.enabled=true")
    assert 0 < kept.references < kept.written["train"]
    _, left_out = export("moss-tts", "references.enabled=true", "references.required=true", out=tmp_path / "required")
    assert left_out.written["train"] == left_out.references == kept.references
    assert left_out.removed["no_reference"] == kept.written["train"] - kept.references


@pytest.mark.parametrize("rule", ["references.candidates=1", "references.min_seconds=-1"])
def test_rules_that_make_no_sense_are_refused(export: Callable[..., Any], rule: str):
    with pytest.raises(ValueError, match=rule.partition("=")[0]):
        export("moss-tts", rule)
