"""A dataset whose clips are parts of files, from its input list to what is made of it; and one of the schema before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from lhotse import CutSet

from pipeline import schema
from pipeline.config import parse_config
from pipeline.dataset.dataset import read_output
from pipeline.dataset.opening import OutputMismatch, open_output, with_absolute_uris
from pipeline.export.config import load_export_config
from pipeline.export.job import run_export
from pipeline.export.rows import read_rows
from pipeline.loading.hf import load_codes
from pipeline.report.originals import read_original
from pipeline.verify import verify
from pipeline.verify.duplicates import find_duplicates
from tests.support import rows, tokenize_in_process

PARTS = [(0.5, 2.0), (2.5, 1.237), (3.0, 4.5), (9.0, 1.0)]


def document(root: Path, name: str, **options: Any) -> dict[str, Any]:
    return {
        "input": {"splits": {"train": [f"{root}/{name}.jsonl"]}, **options},
        "output": {"uri": f"{root}/{name}"},
        "model": {"name": "cat-tiny"},
    }


def begin(root: Path) -> np.ndarray:
    sound = np.random.default_rng(3).uniform(-0.4, 0.4, 10 * 44_100).astype(np.float32)
    sf.write(root / "long.flac", sound, 44_100)
    frames, _ = sf.read(root / "long.flac", dtype="float32")
    return np.asarray(frames)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`parts`, tokenized from a list of parts of one file, and `files`, from the same sounds in files of their own."""
    root = tmp_path_factory.mktemp("parts")
    frames = begin(root)
    parts, files = [], []
    for number, (start, duration) in enumerate(PARTS):
        first = round(start * 44_100)
        sf.write(root / f"{number}.wav", frames[first : first + round(duration * 44_100)], 44_100, subtype="FLOAT")
        said = {"text": f"text {number}", "speaker": "ann"}
        parts.append({"audio_filepath": "long.flac", "offset": start, "duration": duration, **said})
        files.append({"audio_filepath": f"{number}.wav", **said})
    parts += [parts[3], {**parts[0], "offset": 9.5}]
    for name, records in (("parts", parts), ("files", files)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        tokenize_in_process(with_absolute_uris(parse_config(document(root, name))))
    return root


def test_the_codes_are_those_of_the_same_sound_in_a_file_of_its_own(root: Path):
    parts, files = rows(root / "parts"), rows(root / "files")
    assert [row["start"] for row in parts] == [start for start, _ in PARTS] + [9.0]
    assert [row["start"] for row in files] == 4 * [None]
    same = ("audio_xxh3", "num_samples", "duration", "text", *(schema.layer_column(layer) for layer in range(32)))
    for part, file in zip(parts, files, strict=False):
        assert {name: part[name] for name in same} == {name: file[name] for name in same}
        assert part["source"] == str(root / "long.flac")
    (reject,) = rows(root / "parts", "rejects")
    assert (reject["reason"], reject["key"]) == ("outside_file", "long.flac#t=9.5,11.5")


def test_verify_encodes_parts_again(root: Path):
    report = verify(str(root / "parts"), sample=None)
    assert report.differences == []
    assert (report.tallies["sources"].looked, report.tallies["encoded again"].looked) == (6, 6)


def test_verify_finds_a_part_that_is_another(root: Path, tmp_path: Path):
    begin(tmp_path)
    (tmp_path / "parts.jsonl").write_text((root / "parts.jsonl").read_text())
    tokenize_in_process(with_absolute_uris(parse_config(document(tmp_path, "parts"))))
    sound, rate = sf.read(tmp_path / "long.flac", dtype="float32")
    sf.write(tmp_path / "long.flac", np.roll(sound, 1), rate)
    report = verify(str(tmp_path / "parts"), sample=None)
    assert report.tallies["encoded again"].wrong == 5


def test_exports_say_where_in_its_file_a_clip_begins(root: Path, tmp_path: Path):
    for to in ("nemo", "lhotse", "moss-tts"):
        given = {"dataset": {"uri": str(root / "parts")}, "export": {"to": to, "uri": str(tmp_path / to)}}
        run_export(load_export_config(None, (), given), lambda what, done, total: None)
    starts = {row["id"]: row["start"] for row in rows(root / "parts")}
    lines = [json.loads(line) for path in (tmp_path / "nemo").rglob("*.jsonl") for line in path.open()]
    assert {line["id"]: line["offset"] for line in lines} == starts
    assert {line["audio_filepath"] for line in lines} == {str(root / "long.flac")}
    assert {cut.id: cut.custom["offset"] for cut in CutSet.from_shar(in_dir=tmp_path / "lhotse" / "train")} == starts
    spoken = [json.loads(line) for path in (tmp_path / "moss-tts").rglob("*.jsonl") for line in path.open()]
    assert f"{root}/long.flac#t=0.5,2.5" in {line["audio"] for line in spoken}
    assert all(line["ref_audio"] != line["audio"] for line in spoken if "ref_audio" in line)


def test_what_nemo_gets_is_an_input_list_of_the_same_dataset(root: Path, tmp_path: Path):
    """The other way round: the list that was exported gives the same sound, each part with its own text."""
    settings = {"dataset": {"uri": str(root / "parts")}, "export": {"to": "nemo", "uri": str(tmp_path / "nemo")}}
    run_export(load_export_config(None, ("asr.codes=false",), settings), lambda what, done, total: None)
    (listed,) = (tmp_path / "nemo").rglob("*.jsonl")
    (root / "again.jsonl").write_bytes(listed.read_bytes())
    tokenize_in_process(with_absolute_uris(parse_config(document(root, "again"))))
    before = sorted((row["start"], row["text"], row["audio_xxh3"]) for row in rows(root / "parts"))
    after = sorted((row["start"], row["text"], row["audio_xxh3"]) for row in rows(root / "again"))
    assert [row[:2] for row in after] == [row[:2] for row in before]


def test_trainers_reports_and_duplicates_know_parts(root: Path, tmp_path: Path):
    dataset = load_codes(str(root / "parts"), columns=("id", "start"), cache_dir=tmp_path)
    assert dataset["start"] == [start for start, _ in PARTS] + [9.0]
    output = read_output(str(root / "parts"))
    row = rows(root / "parts")[1]
    original = read_original(output, output.specs[0], 1, row["audio_xxh3"], row["num_samples"])
    assert original.shape == (1, row["num_samples"])
    assert find_duplicates(output).groups == 1


@pytest.fixture
def version_1(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output of codes.v1, as the version before this one wrote it."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CODES", "codes.v1")
        for function in (schema.codes_schema, schema.clip_columns):
            patch.setattr(function, "__defaults__", ("codes.v1",))
        begin(tmp_path)
        sf.write(tmp_path / "0.wav", np.zeros(16_000) + 0.1, 16_000)
        (tmp_path / "old.jsonl").write_text('{"audio": "0.wav", "text": "old"}\n')
        tokenize_in_process(with_absolute_uris(parse_config(document(tmp_path, "old"))))
    return tmp_path / "old"


def test_an_output_of_the_schema_before_is_read_verified_and_exported_but_not_gone_on_with(version_1: Path):
    assert "start" not in pq.read_schema(next(version_1.glob("data/**/*.parquet"))).names
    report = verify(str(version_1), sample=None)
    assert report.differences == []
    output = read_output(str(version_1))
    (row,) = read_rows(output, output.specs[0], 8)
    assert (row.start, row.text, row.address) == (None, "old", str(version_1.parent / "0.wav"))
    with pytest.raises(ValueError, match="no column start"):
        load_codes(str(version_1), columns=("start",))
    assert len(load_codes(str(version_1), cache_dir=version_1.parent)) == 1
    with pytest.raises(OutputMismatch, match=r"schema: the output has 'codes\.v1', this run 'codes\.v2'"):
        open_output(with_absolute_uris(parse_config(document(version_1.parent, "old"))))
