"""Normalized transcripts: letters stay, whatever their script, and what is empty then is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.export.config import TextConfig
from pipeline.export.rows import ExportRow
from pipeline.export.text import is_english, normalizer


@pytest.mark.parametrize(
    ("rules", "text", "language", "expected"),
    [
        ("none", " Mr. Smith, twenty-one! ", "en", "Mr. Smith, twenty-one!"),
        ("basic", "Mr. Smith, [noise] twenty-one!", "en", "mr smith twenty one"),
        ("whisper", "Mr. Smith won't pay twenty-one colours", "en-GB", "mister smith will not pay 21 colors"),
        ("whisper", "Écoutez, l'été!", "fr", "écoutez l été"),
        ("whisper", "Привет, мир!", "ru", "привет мир"),
        ("whisper", "नमस्ते दुनिया।", "hi", "नमस्ते दुनिया"),
        ("whisper", "[laughs]", None, ""),
    ],
)
def test_rules_by_language(rules: Any, text: str, language: str | None, expected: str):
    assert normalizer(TextConfig(normalize=rules))(text, language) == expected


def test_english_by_its_names():
    assert all(is_english(name) for name in ("en", "EN-us", "en_GB", "English", "eng"))
    assert not any(is_english(name) for name in (None, "", "enm", "fr", "de-en"))


def test_the_demo_corpus_in_normal_form(
    export: Callable[..., Any], json_lines: Callable[..., Any], clips: dict[str, ExportRow]
):
    folder, _ = export("nemo", "text.normalize=basic", "asr.codes=false")
    records = json_lines(folder / "train")
    assert any(record["text"] != clips[record["id"]].text for record in records)
    for record in records:
        assert record["text"] == record["text"].lower().strip()
        assert not set(record["text"]) & set(".,!?;:()[]")
