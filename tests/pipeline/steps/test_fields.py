"""Whatever a source says of a clip becomes text and JSON that every reader accepts."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.input_config import InputConfig
from pipeline.items import Description, Origin
from pipeline.steps.columns import find_audio_column
from pipeline.steps.read.fields import MAX_DEPTH, clean, describe, read_reject, to_json

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.decimals()
    | st.timedeltas(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers(), inner) | st.tuples(inner),
    max_leaves=8,
)


@given(ANYTHING)
def test_any_value_becomes_strict_json_in_utf8(value: Any) -> None:
    text = json.dumps(to_json(value), allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode("utf-8")) == to_json(value)


@given(st.text(st.characters()))
def test_text_without_lone_surrogates_is_left_alone(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert len(cleaned) == len(text)
    assert all(after in (before, "\ufffd") for before, after in zip(text, cleaned, strict=True))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02 03:04:05"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"\x00\xff", "AP8="),
        ([("key", 1)], [["key", 1]]),
        ({1: {"a": None}}, {"1": {"a": None}}),
        (True, True),
        (2**63, 2**63),
        ("lone \udcff", "lone \ufffd"),
        ("\ud83d", "\ufffd"),
    ],
)
def test_values_that_json_lacks_keep_their_meaning(value: Any, expected: Any) -> None:
    result = to_json(value)
    assert result == expected
    assert type(result) is type(expected)


def test_nesting_without_end_is_cut_and_says_so() -> None:
    value: Any = "core"
    for _ in range(100_000):
        value = [value]
    text = json.dumps(to_json(value))
    assert text.count("[") == MAX_DEPTH + 1
    assert "nested deeper" in text
    shallow: Any = "core"
    for _ in range(MAX_DEPTH):
        shallow = [shallow]
    assert to_json(shallow) == shallow


@pytest.mark.parametrize(
    ("text", "transcript", "rest"),
    [
        ("hello", "hello", {}),
        ("", "", {}),
        (None, None, {}),
        (float("nan"), None, {}),
        (42, "42", {}),
        ("half \ud800", "half \ufffd", {}),
        (["one", "two"], None, {"text": ["one", "two"]}),
        ({"en": "one"}, None, {"text": {"en": "one"}}),
    ],
)
def test_the_transcript_is_taken_out_of_the_fields(text: Any, transcript: str | None, rest: dict[str, Any]) -> None:
    assert described({"text": text, "take": 7}) == Description(text=transcript, metadata=rest | {"take": 7})


def described(fields: dict[str, Any], **columns: str) -> Description:
    return describe(fields, InputConfig(splits={"train": ("a",)}, **columns))


def test_without_a_transcript_all_fields_stay() -> None:
    assert described({"sentence": "hello"}) == Description(metadata={"sentence": "hello"})
    assert described({"sentence": "hello"}, text_column="sentence") == Description(text="hello")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language": "en", "lang": "de"}, Description(language="en", metadata={"lang": "de"})),
        ({"lang": "de"}, Description(language="de")),
        ({"locale": "cy", "client_id": "a1"}, Description(language="cy", speaker_id="a1")),
        ({"speaker_id": 84, "speaker": "Ann"}, Description(speaker_id="84", metadata={"speaker": "Ann"})),
        ({"speaker_id": 84.0, "language": float("nan")}, Description(speaker_id="84")),
        ({"speaker": "", "language": ""}, Description()),
        ({"speaker": {"name": "Ann"}}, Description(metadata={"speaker": {"name": "Ann"}})),
        ({"labels": ["/m/09x0r", "/m/05zppz"]}, Description(labels=("/m/09x0r", "/m/05zppz"))),
        ({"labels": [3, 14]}, Description(labels=("3", "14"))),
        ({"labels": []}, Description(labels=())),
        ({"labels": None}, Description()),
        ({"label": 3}, Description(labels=("3",))),
        ({"label": "Male speech, man speaking"}, Description(labels=("Male speech, man speaking",))),
        ({"positive_labels": "/m/09x0r,/t/dd00088"}, Description(labels=("/m/09x0r", "/t/dd00088"))),
        ({"labels": [["a"], "b"]}, Description(metadata={"labels": [["a"], "b"]})),
        ({"language": "half \ud800"}, Description(language="half \ufffd")),
    ],
)
def test_language_speaker_and_labels_are_found_by_their_usual_names(
    fields: dict[str, Any], expected: Description
) -> None:
    assert described(fields) == expected


def test_configured_columns_are_taken_instead_of_the_usual_ones() -> None:
    fields = {"tongue": "en", "reader": 3, "tags": ["a"], "language": "x", "speaker": "y", "labels": ["z"]}
    found = described(fields, language_column="tongue", speaker_column="reader", labels_column="tags")
    assert found == Description(
        language="en", speaker_id="3", labels=("a",), metadata={"language": "x", "speaker": "y", "labels": ["z"]}
    )


def test_the_first_usual_audio_column_is_found_unless_one_is_configured() -> None:
    assert find_audio_column(["path", "audio", "text"], None) == "audio"
    assert find_audio_column(["file", "audio_filepath"], None) == "audio_filepath"
    assert find_audio_column(["audio", "wave"], "wave") == "wave"
    assert find_audio_column(["audio"], "wave") is None
    assert find_audio_column([], None) is None


def test_the_message_of_a_reject_can_be_written() -> None:
    reject = read_reject(Origin(index=0, source="a", key="b"), "missing", "no \udcff there")
    assert reject.message == "no \ufffd there"
