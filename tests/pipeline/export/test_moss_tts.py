"""The JSONL against the published rules of MOSS-TTS finetuning: github.com/OpenMOSS/MOSS-TTS, moss_tts_*/finetuning.

`check` asks for what `dataset.py` there asks for: it raises where that raises, and reads the same fields.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.export.rows import ExportRow

PROMPT_FIELDS = {
    "text": str,
    "instruction": str,
    "tokens": int,
    "quality": str,
    "sound_event": str,
    "ambient_sound": str,
    "language": str,
}
PATH_FIELDS = {"audio", "ref_audio", "reference_audio", "reference"}
CODE_FIELDS = {"audio_codes", "ref_audio_codes", "reference_audio_codes"}


def matrix(value: Any) -> np.ndarray:
    """Codes as (frames, num_quantizers), as a tensor of whole numbers would take them."""
    codes = np.array(value)
    assert codes.ndim == 2
    assert codes.dtype == np.int64
    assert 0 <= codes.min() <= codes.max() < 1024
    return codes


def check(record: dict[str, Any]) -> tuple[np.ndarray, list[np.ndarray | None] | None]:
    """The target and the references of a record that follows the rules."""
    assert record.keys() <= PROMPT_FIELDS.keys() | PATH_FIELDS | CODE_FIELDS
    for name, kind in PROMPT_FIELDS.items():
        assert isinstance(record.get(name), kind | None)
    target = matrix(record["audio_codes"])
    references: list[np.ndarray | None] | None = None
    if "reference_audio_codes" in record:  # looked up before ref_audio_codes: one matrix or null for each speaker
        references = [None if codes is None else matrix(codes) for codes in record["reference_audio_codes"]]
        assert len(record["reference"]) == len(references)
    elif "ref_audio_codes" in record:
        assert isinstance(record["ref_audio"], str)
        references = [matrix(record["ref_audio_codes"])]
    assert all(codes is None or codes.shape[1] == target.shape[1] for codes in references or [])
    return target, references


def test_every_record_follows_the_published_rules(
    export: Callable[..., Any], json_lines: Callable[..., Any], clips: dict[str, ExportRow]
):
    folder, report = export("moss-tts")
    assert all(path.suffix == ".jsonl" for path in (folder / "train").iterdir()), "sft.py takes a folder's *.jsonl"
    spoken = [row for row in clips.values() if row.text]
    records = json_lines(folder / "train")
    assert len(records) == len(spoken) == report.written["train"] == len(clips) - report.removed["no_text"]
    by_place = {(row.audio, row.text): row for row in spoken}
    for record in records:
        target, references = check(record)
        row = by_place[record["audio"], record["text"]]
        np.testing.assert_array_equal(target, row.codes.T)
        assert record.get("language") == row.language
        assert references is None


def test_references_are_codes_of_another_clip_of_the_speaker(
    export: Callable[..., Any], json_lines: Callable[..., Any], clips: dict[str, ExportRow]
):
    folder, report = export("moss-tts", "references.enabled=true")
    rows = {row.audio: row for row in clips.values()}
    seen = 0
    for record in json_lines(folder / "train"):
        _, references = check(record)
        if references:
            (codes,) = references
            assert record["ref_audio"] != record["audio"]
            assert rows[record["ref_audio"]].speaker_id == rows[record["audio"]].speaker_id is not None
            np.testing.assert_array_equal(codes, rows[record["ref_audio"]].codes.T)
            seen += 1
    assert seen == report.references > 0


def test_lists_of_references_names_of_languages_lengths_and_fewer_layers(
    export: Callable[..., Any], json_lines: Callable[..., Any], clips: dict[str, ExportRow]
):
    settings = ["moss_tts.reference_field=reference", "moss_tts.tokens=true"]
    languages = "moss_tts.languages={en: English, fr: French}"
    folder, report = export("moss-tts", "references.enabled=true", "dataset.num_quantizers=8", *settings, languages)
    records = json_lines(folder / "train")
    for record in records:
        target, _ = check(record)
        assert target.shape == (record["tokens"], 8)
    assert {record.get("language") for record in records} >= {"English", "French", "ru"}
    assert sum("reference_audio_codes" in record for record in records) == report.references > 0


def test_a_clip_inside_a_tar_says_where_it_is(export: Callable[..., Any], json_lines: Callable[..., Any], corpus: Path):
    folder, _ = export("moss-tts")
    places = {record["audio"] for record in json_lines(folder / "train")}
    assert str(corpus / "folder" / "librivox" / "0870.wav") in places
    assert any(f"{corpus}/webdataset/" in place and ".tar#prompts_" in place for place in places)


@pytest.mark.parametrize("layers", [0, 33])
def test_layers_that_are_not_there_are_refused(export: Callable[..., Any], layers: int):
    with pytest.raises(ValueError, match=r"dataset\.num_quantizers"):
        export("moss-tts", f"dataset.num_quantizers={layers}")
