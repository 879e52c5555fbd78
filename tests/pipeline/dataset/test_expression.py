"""Expressions over columns and metadata: what they give, and what they may not ask for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipeline.dataset.expression import Chosen, condition, connection, expression

BATCH = pa.RecordBatch.from_pydict(
    {
        "id": ["a", "b", "c"],
        "duration": [1.0, 2.0, 3.0],
        "language": ["en", None, "de"],
        "labels": [["rain"], [], None],
        "metadata": [
            '{"snr": 20, "scores": {"mos": 4.5}, "mixed": 1, "Snr dB": 1}',
            '{"snr": 10.5, "mixed": "x"}',
            "{}",
        ],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("duration > 1 and snr > 15", [False, False, None]),
        ("DURATION >= 2", [False, True, True]),
        ("language is null or language = 'de'", [False, True, True]),
        ("scores.mos > 4", [True, None, None]),
        ("mixed = 'x'", [False, True, None]),
        ('"Snr dB" = 1', [True, None, None]),
        ("list_contains(labels, 'rain')", [True, False, None]),
        ("regexp_matches(language, '^e') and duration between 1 and 2", [True, None, False]),
        ("coalesce(snr, 0) < 15", [False, True, True]),
        ("no_such_key > 1", [None, None, None]),
        ("true", [True, True, True]),
    ],
)
def test_a_condition_is_about_columns_and_keys_of_the_metadata(text: str, expected: list[bool | None]):
    assert condition(text, BATCH).to_pylist() == expected


def test_only_the_columns_that_are_asked_for_are_read():
    assert expression("duration * 2").columns == ["duration"]
    assert expression("snr + duration").columns == ["duration", "metadata"]
    assert expression("1").columns == ["id"]


def test_rows_without_a_value_are_not_chosen():
    assert Chosen("snr > 1").of(BATCH)["id"].to_pylist() == ["a", "b"]
    assert Chosen("not snr > 15").of(BATCH)["id"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snr >", "syntax error"),
        ("duration) or (true; drop table x", "syntax error"),
        ("duration > 1; select 1", "syntax error"),
        ("duration) , (snr", "give one expression"),
        ("duration in (select 1)", "a subquery cannot be used"),
        ("sum(duration) over () > 1", "a window cannot be used"),
        ("max(duration) > 1", "max: no function"),
        ("random() > 0.5", "random: no function"),
        ("now() > '2020-01-01'", "now: no function"),
        ("getenv('HOME') = 'x'", "getenv: no function"),
        ("read_text('/etc/passwd') = ''", "read_text: no function"),
        ("snr", "no condition but a value"),
        ("snr > 'much'", "Could not convert string 'much'"),
        ("", "no condition"),
    ],
)
def test_what_is_no_condition_on_a_row_says_why(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        condition(text, BATCH)


def test_files_cannot_be_reached(tmp_path: Path):
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(duckdb.Error, match="disabled"):
        connection().execute(f"SELECT * FROM read_csv('{tmp_path}/a.csv')")


def test_threads_compute_at_the_same_time():
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: condition("snr > 15", BATCH).to_pylist(), range(40)))
    assert found == [[True, False, None]] * 40
