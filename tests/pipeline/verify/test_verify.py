"""Verify: what is whole passes, whatever byte is changed is found, and so is what no checksum can tell."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.dataset.layout import Layout
from pipeline.formatting import format_bytes
from pipeline.steps import prepare
from pipeline.verify import CHECKS, Findings, verify
from pipeline.verify.reencode import choose
from pipeline.verify.repair import repair
from tests.pipeline.conftest import Tokenized
from tests.support import tokenize_in_process


@pytest.fixture
def output(tokenized: Tokenized, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tokenized.output, tmp_path / "codes"))


def objects(output: Path) -> list[Path]:
    return sorted(path for path in output.rglob("*") if path.is_file())


def checks_of(findings: Findings) -> set[str]:
    return {difference.check for difference in findings.differences}


def stored(output: Path) -> Findings:
    """What is found without a look at the sources."""
    return verify(str(output), sample=0)


def test_a_whole_output_passes_every_check(tokenized: Tokenized):
    findings = verify(str(tokenized.output), sample=None)
    assert findings.differences == []
    assert findings.wrong == 0
    looked = {check: tally.looked for check, tally in findings.tallies.items()}
    assert looked.keys() == CHECKS.keys()
    assert all(looked.values()), looked
    assert (looked["complete"], looked["sources"], looked["lengths"], looked["rejects"]) == (5, 11, 7, 4)


@pytest.mark.slow
def test_a_changed_byte_is_found_wherever_it_is(output: Path):
    chance = random.Random(5)
    for path in objects(output):
        data = path.read_bytes()
        for offset in {0, len(data) - 1, *(chance.randrange(len(data)) for _ in range(4))}:
            damaged = bytearray(data)
            damaged[offset] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            findings = stored(output)
            assert findings.wrong, f"byte {offset} of {path}"
            assert any(difference.remedy and difference.uri for difference in findings.differences)
        path.write_bytes(data)
    assert stored(output).wrong == 0


@pytest.mark.slow
def test_what_is_cut_emptied_lengthened_or_deleted_is_found_and_named(output: Path):
    chance = random.Random(6)
    for path in objects(output):
        data = path.read_bytes()
        for damaged in (data[: chance.randrange(1, len(data))], b"", data + b"\0"):
            path.write_bytes(damaged)
            assert any(str(path) == difference.uri for difference in stored(output).differences), path
        path.unlink()
        findings = stored(output)
        assert any(str(path) == difference.uri for difference in findings.differences), path
        path.write_bytes(data)
    assert stored(output).wrong == 0


def test_objects_that_were_exchanged_are_found(output: Path):
    for kind in ("data/*/*.parquet", "rejects/*/*.parquet", "_moss_tok/shards/*.json"):
        one, other = sorted(output.glob(kind))[:2]
        one_data, other_data = one.read_bytes(), other.read_bytes()
        one.write_bytes(other_data)
        other.write_bytes(one_data)
        named = {difference.uri for difference in stored(output).differences}
        assert {str(one), str(other)} <= named
        one.write_bytes(one_data)
        other.write_bytes(other_data)


def test_objects_that_belong_to_no_shard_are_found(output: Path):
    data = next(output.glob("data/train/*.parquet"))
    manifest = next(output.glob("_moss_tok/shards/*.json"))
    (output / "rejects" / "train").mkdir(exist_ok=True)
    strays = [
        shutil.copy(data, data.with_name("copy.parquet")),
        shutil.copy(data, output / "data" / "more.parquet"),
        shutil.copy(data, output / "rejects" / "train" / data.name),
        shutil.copy(manifest, manifest.with_name("0123456789abcdef.json")),
    ]
    (output / "data" / "train" / ".half.parquet.tmp").write_bytes(b"left by a writer that was killed")
    findings = stored(output)
    assert checks_of(findings) == {"strays"}
    assert {difference.uri for difference in findings.differences} == {str(path) for path in strays}


def test_an_output_that_is_not_finished_says_which_shards_are_missing(output: Path):
    manifest = next(output.glob("_moss_tok/shards/*.json"))
    manifest.unlink()
    (output / "_SUCCESS").unlink()
    findings = stored(output)
    missing = [difference for difference in findings.differences if difference.check == "complete"]
    assert [difference.shard_id for difference in missing] == [manifest.stem]
    assert "tokenize" in missing[0].remedy
    assert checks_of(findings) == {"complete", "strays"}, "and its data lie where load_dataset would read them"


def test_the_page_lists_every_check():
    page = (Path(__file__).parents[3] / "docs" / "verify.md").read_text()
    assert [line for line in page.splitlines() if line.startswith(tuple(f"| {check} |" for check in CHECKS))] == [
        f"| {check} | {meaning} |" for check, meaning in CHECKS.items()
    ]


@pytest.mark.slow
def test_what_is_advised_mends_the_output(output: Path, tokenized: Tokenized):
    before = {path.relative_to(output): path.read_bytes() for path in output.glob("*/*/*.parquet")}
    damaged, gone = sorted(output.glob("data/train/*.parquet"))[:2]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    gone.unlink()
    next(output.glob("_moss_tok/shards/*.json")).write_bytes(b"{}")
    found = stored(output).differences
    assert any("moss-tok repair --read" in difference.remedy for difference in found)
    repair(str(output), read=True)
    config = tokenized.config
    tokenize_in_process(config.model_copy(update={"output": config.output.model_copy(update={"uri": str(output)})}))
    assert verify(str(output), sample=None).differences == []
    assert {path.relative_to(output): path.read_bytes() for path in output.glob("*/*/*.parquet")} == before


def test_where_there_is_no_output_nothing_can_be_verified(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no output of moss-tok"):
        verify(str(tmp_path))


def tamper(output: Path, change: Callable[[pa.Table], pa.Table]) -> str:
    """Change the rows of a shard as one would who also writes new checksums; returns the shard's id."""
    path = max(output.glob("data/train/*.parquet"), key=os.path.getsize)
    table = change(pq.read_table(path))
    pq.write_table(table, path, row_group_size=2, compression="zstd", write_page_checksum=True)
    manifest = output / "_moss_tok" / "shards" / f"{path.stem}.json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_bytes(
        dump_checksummed(
            load_checksummed(manifest.read_bytes()) | {"sha256": digest, "output_bytes": path.stat().st_size}
        )
    )
    totals = output / "_moss_tok" / "totals.json"
    document = load_checksummed(totals.read_bytes())
    before = document["totals"]["output_bytes"]
    after = sum(path.stat().st_size for path in output.glob("data/*/*.parquet"))
    document["totals"]["output_bytes"] = after
    totals.write_bytes(dump_checksummed(document))
    card = output / "README.md"
    card.write_text(card.read_text().replace(f"| {format_bytes(before)} |", f"| {format_bytes(after)} |"))
    (output / "_SUCCESS").write_text(Layout(str(output)).checksums())
    return path.stem


def with_value(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        field = table.schema.field(column)
        return table.set_column(table.column_names.index(column), field, pa.array(values, field.type))

    return change


def first_code(code: int) -> Callable[[list[int]], list[int]]:
    return lambda codes: [code, *codes[1:]]


@pytest.mark.parametrize(
    ("change", "check", "column"),
    [
        (with_value("codes_03", 1, first_code(1024)), "codes", "codes_03"),
        (with_value("codes_31", 0, first_code(-1)), "codes", "codes_31"),
        (with_value("codes_07", 1, lambda codes: codes[:-1]), "lengths", "codes_07"),
        (with_value("num_frames", 0, lambda frames: frames + 1), "lengths", "num_frames"),
        (with_value("num_samples", 2, 0), "lengths", "num_frames"),
        (with_value("duration", 1, 1.5), "lengths", "duration"),
        (with_value("sample_rate", 1, 16_000), "lengths", "sample_rate"),
        (with_value("id", 0, "somebody-else"), "ids", "id"),
        (with_value("id", 1, lambda clip_id: clip_id[:-1] + "0"), "ids", "id"),
        (with_value("peak", 0, float("nan")), "values", "peak"),
        (with_value("rms", 0, 2.0), "values", "rms"),
        (with_value("silence", 2, 1.5), "values", "silence"),
        (with_value("audio_xxh3", 1, "0" * 31), "values", "audio_xxh3"),
        (with_value("metadata", 1, "[]"), "values", "metadata"),
        (lambda table: table.slice(0, 2), "counts", None),
        (lambda table: table.take([0, 2, 1]), "ids", "id"),
        (lambda table: table.rename_columns(["ID", *table.column_names[1:]]), "schema", None),
        (lambda table: table.replace_schema_metadata({}), "schema", None),
    ],
)
def test_rows_that_cannot_be_are_found_behind_valid_checksums(
    output: Path, change: Callable[[pa.Table], pa.Table], check: str, column: str | None
):
    shard_id = tamper(output, change)
    found = [difference for difference in stored(output).differences if difference.check == check]
    assert (shard_id, column) in {(difference.shard_id, difference.column) for difference in found}


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (with_value("codes_05", 1, lambda codes: [*codes[:9], (codes[9] + 1) % 1024, *codes[10:]]), "codes_05"),
        (with_value("audio_xxh3", 0, "0" * 32), "audio_xxh3"),
        (with_value("num_samples", 2, lambda samples: samples - 1), "num_samples"),
        (with_value("key", 2, "another"), "key"),
        (with_value("rms", 1, lambda level: level * 0.99), "rms"),
    ],
)
def test_rows_that_could_be_but_are_not_what_the_source_gives_are_found_by_encoding_again(
    output: Path, change: Callable[[pa.Table], pa.Table], column: str
):
    shard_id = tamper(output, change)
    again = [item for item in verify(str(output), sample=None).differences if item.check == "encoded again"]
    assert [(item.shard_id, item.column) for item in again] == [(shard_id, column)]


def test_a_changed_code_is_named_by_its_frame_and_the_encoder_is_suspected(output: Path):
    tamper(output, with_value("codes_05", 1, lambda codes: [*codes[:9], (codes[9] + 1) % 1024, *codes[10:]]))
    (difference,) = verify(str(output), sample=None).differences
    assert "codes_05: 1 of" in difference.message
    assert "frame 9" in difference.message
    assert "the waveform is the same" in difference.message


@pytest.mark.parametrize("kind", ["data", "rejects"])
def test_an_object_that_is_gone_is_one_difference_and_no_word_against_the_encoder(output: Path, kind: str):
    gone = max(output.glob(f"{kind}/*/*.parquet"), key=lambda path: path.stat().st_size)
    gone.unlink()
    (difference,) = verify(str(output), sample=None).differences
    assert (difference.check, difference.uri) == ("objects", str(gone))


@pytest.fixture
def sources(tokenized: Tokenized) -> Iterator[Path]:
    """The sources, put back after the test as they were, with their times."""
    kept = tokenized.sources.with_name("kept")
    shutil.copytree(tokenized.sources, kept)
    yield tokenized.sources
    shutil.rmtree(tokenized.sources)
    kept.rename(tokenized.sources)


def test_sources_that_changed_or_are_gone_are_told_apart_from_codes_that_differ(output: Path, sources: Path):
    (sources / "few.tar").unlink()
    (sources / "broken" / "empty.wav").write_bytes(b"something")
    (sources / "clips" / "copy.mp3").unlink()
    findings = verify(str(output), sample=None)
    assert checks_of(findings) == {"sources"}
    messages = " ".join(difference.message for difference in findings.differences)
    assert "gone since it was planned" in messages
    assert "empty.wav: changed since it was planned" in messages
    assert "the file is not there" in messages
    assert findings.tallies["sources"].wrong == 2 + 3 + 1
    assert stored(output).wrong == 0


def test_a_clip_of_many_parts_is_encoded_again_to_the_same_codes(tokenized: Tokenized, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepare, "PART_FRAMES", 10)
    findings = verify(str(tokenized.output), sample=None)
    assert findings.differences == []
    assert findings.tallies["encoded again"].looked == 11


def test_a_codec_with_other_weights_is_refused_before_anything_is_read(tokenized: Tokenized):
    other = Path(__file__).parents[2] / "golden" / "v1_tiny"
    with pytest.raises(ValueError, match="has other weights than cat-tiny"):
        verify(str(tokenized.output), model=str(other))


def test_an_output_in_a_store_is_verified_like_one_on_a_disk(tokenized: Tokenized):
    root = "memory://verify/codes"
    for path in objects(tokenized.output):
        storage.publish(f"{root}/{path.relative_to(tokenized.output)}", path.read_bytes())
    assert verify(root, sample=3).wrong == 0
    data = next(tokenized.output.glob("data/train/*.parquet"))
    storage.publish(f"{root}/data/train/{data.name}", data.read_bytes()[:-1])
    assert {difference.check for difference in verify(root, sample=0).differences} >= {"objects", "pages"}


def test_a_sample_is_spread_over_the_shards_and_the_same_again():
    clips = {f"{number:04x}": 5 for number in range(10)} | {"none": 0}
    seven = choose(clips, 7, seed=1)
    assert [len(positions) for positions in seven.values()] == [1] * 7
    assert choose(clips, 7, seed=1) == seven != choose(clips, 7, seed=2)
    thirty = choose(clips, 30, seed=0)
    assert [len(positions) for positions in thirty.values()] == [3] * 10
    assert all(positions == sorted(set(positions)) for positions in thirty.values())
    every = choose(clips, None, seed=0)
    assert every == choose(clips, 1000, seed=3)
    assert sum(len(positions) for positions in every.values()) == 50
    assert choose({}, 20, seed=0) == {}
    assert np.unique([positions[0] for positions in seven.values()]).size > 1
