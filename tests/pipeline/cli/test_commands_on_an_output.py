"""verify, duplicates and decode as they are typed: what they print, write and end with."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.cli.main import main
from pipeline.export.filters import read_ids
from tests.pipeline.conftest import Tokenized
from tests.support import rows

Type = Callable[..., str]


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The command sets one for its process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Type:
    """A command; gives what it prints where it ends as expected, and what it complains of where it does not work."""

    def run(*arguments: object, status: int = 0) -> str:
        found = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == status, out + err
        return err if status == 2 else out

    return run


def test_verify_prints_a_table_and_that_all_is_right(tokenized: Tokenized, typed: Type):
    out = typed("verify", tokenized.output, "--sample", 4)
    table = {line[2:16].strip(): line[16:].split() for line in out.splitlines() if line.startswith("  ")}
    assert table["complete"][:2] == ["5", "-"]
    assert table["sources"][:2] == ["4", "-"]
    assert out.endswith("everything is right\n")


def test_verify_names_shard_id_column_and_what_to_do_and_ends_with_1(tokenized: Tokenized, typed: Type, tmp_path: Path):
    output = Path(shutil.copytree(tokenized.output, tmp_path / "codes"))
    path = next(output.glob("data/train/*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    out = typed("verify", output, "--sample", 0, status=1)
    assert f"shard {path.stem}" in out
    assert str(path) in out
    assert "-> delete what there is of" in out
    report = json.loads(typed("verify", output, "--sample", 0, "--json", status=1))
    assert report["ok"] is False
    assert report["checks"]["objects"]["wrong"] == 1
    assert report["differences"][0]["shard_id"] == path.stem
    assert report["checks"]["encoded again"] == {"looked": 0, "wrong": 0}


def test_verify_cannot_check_what_is_no_output(typed: Type, tokenized: Tokenized, tmp_path: Path):
    assert "no output of moss-tok" in typed("verify", tmp_path, status=2)
    assert "give 0 or more" in typed("verify", tokenized.output, "--sample", "-1", status=2)


def test_duplicates_prints_groups_and_writes_what_an_export_leaves_out(
    tokenized: Tokenized, typed: Type, tmp_path: Path
):
    out = typed("duplicates", tokenized.output, "-o", tmp_path / "drop.txt")
    assert "2 of 7 clips are copies of others" in out
    assert out.count("  keep  ") == 1
    assert out.count("  drop  ") == 2
    typed("duplicates", tokenized.output, "-o", tmp_path / "all.jsonl")
    listed = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    dropped = {line["id"] for line in listed if line["action"] == "drop"}
    assert len(listed) == 3
    assert len(dropped) == 2
    assert read_ids([str(tmp_path / "drop.txt")]) == read_ids([str(tmp_path / "all.jsonl")]) == dropped
    typed("duplicates", tokenized.output, "-o", tmp_path / "all.parquet")
    assert pq.read_table(tmp_path / "all.parquet").to_pylist() == listed
    figures = json.loads(typed("duplicates", tokenized.output, "--json"))
    assert (figures["clips"], figures["groups"], figures["to_drop"]) == (7, 1, 2)
    assert "ends in .jsonl" in typed("duplicates", tokenized.output, "-o", tmp_path / "all.csv", status=2)


def test_decode_writes_one_file_or_a_folder_and_goes_on_where_it_was(tokenized: Tokenized, typed: Type, tmp_path: Path):
    row, other = rows(tokenized.output)[:2]
    one = tmp_path / "one.flac"
    assert "1 file" in typed("decode", tokenized.output, "--id", row["id"], "--num-quantizers", 2, "-o", one)
    assert soundfile.info(one).frames == row["num_samples"]
    folder = tmp_path / "sounds"
    ids = ("--id", row["id"], "--id", other["id"])
    assert "2 files" in typed("decode", tokenized.output, *ids, "--num-quantizers", 1, "-o", folder)
    assert {path.name for path in folder.iterdir()} == {f"{row['id']}.wav", f"{other['id']}.wav"}
    shard = row["id"].partition("-")[0]
    out = typed("decode", tokenized.output, "--shard", shard, "--num-quantizers", 1, "-o", folder)
    assert f"{len({row['id'], other['id']} & {path.stem for path in folder.iterdir()})} more existed already" in out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "say which rows"),
        (["--id", "a-0", "--limit", "3"], "--id selects single rows"),
        (["--rows", "7"], "give START:STOP"),
        (["--rows", "a:b"], "give START:STOP"),
        (["--rows", "9:2"], "STOP must be above START"),
        (["--rows", "900:"], "--rows 900:: the selection has only 7 committed rows"),
        (["--limit", "-3"], "give 0 or more"),
        (["--id", "a-0", "-o", "a.mp3"], "a.mp3: sound is written as .wav or .flac"),
        (["--split", "train", "-o", "all.wav"], "one file holds one row"),
        (["--split", "dev"], "no split of this name: there are train, test"),
        (["--rows", "0:1", "--num-quantizers", "40"], "the output has 1 to 32"),
    ],
)
def test_decode_says_what_it_needs(
    tokenized: Tokenized, typed: Type, tmp_path: Path, options: list[str], complaint: str
):
    assert complaint in typed("decode", tokenized.output, "-o", tmp_path / "sounds", *options, status=2)
    assert list(tmp_path.iterdir()) == []


def test_stats_prints_the_histogram_of_a_column(tokenized: Tokenized, typed: Type):
    found = json.loads(typed("stats", tokenized.output, "duration", "--json", "--bins", "5"))
    durations = [row["duration"] for row in rows(tokenized.output)]
    assert (found["rows"], found["missing"], sum(found["numbers"]["counts"])) == (len(durations), 0, len(durations))
    assert (found["numbers"]["low"], found["numbers"]["high"]) == (min(durations), max(durations))
    assert found["numbers"]["edges"][0] <= min(durations)
    text = typed("stats", tokenized.output, "duration")
    assert f"{len(durations)} rows, 0 without a value" in text
    assert "#" * 40 in text


def test_stats_counts_words_and_says_what_names_there_are(tokenized: Tokenized, typed: Type):
    flac = sum(row["source_format"] == "flac" for row in rows(tokenized.output))
    text = typed("stats", tokenized.output, "source_format", "--where", "duration > 0")
    assert f"'flac' {flac:>11,} #" in text
    nothing = typed("stats", tokenized.output, "no_such_key")
    assert "No row has a value. Columns are id, source" in nothing
    assert "random: no function" in typed("stats", tokenized.output, "random()", status=2)
