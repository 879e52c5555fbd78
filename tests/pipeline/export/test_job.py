"""A whole export: the same bytes every time, gone on with after a death, and never of what is not committed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.read import random_output
from pipeline.dataset.dataset import read_output
from pipeline.export import part
from pipeline.export.config import load_export_config
from pipeline.export.job import NothingToExport, run_export
from pipeline.export.record import ExportMismatch
from pipeline.export.rows import ExportRow, read_rows
from pipeline.export.workers import WorkerDied
from pipeline.yaml_config import ConfigError
from tests.support import demo_config, tokenize_in_process

FORMATS = {
    "moss-tts": ["references.enabled=true"],
    "tokens": ["tokens.template=['{audio}']", "splits.shares={train: 1, test: 1}"],
    "nemo": ["asr.buckets=3"],
    "lhotse": ["asr.buckets=2", "text.normalize=whisper"],
    "webdataset": ["references.enabled=true"],
    "megatron": ["tokens.template=['{audio}', 0]"],
    "mds": [],
    "litdata": [],
    "lance": [],
}


@pytest.mark.parametrize("to", FORMATS)
def test_two_exports_are_equal_byte_for_byte(
    export: Callable[..., Any], contents: Callable[..., Any], to: str, tmp_path: Path
):
    first, _ = export(to, *FORMATS[to])
    second, _ = export(to, *FORMATS[to], out=tmp_path / "again")
    assert contents(first) == contents(second)
    data = b"".join(content for name, content in contents(first).items() if name.startswith("_moss_tok"))
    assert str(tmp_path).encode() not in data


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_that_died_is_finished_with_the_bytes_of_a_whole_one(
    export: Callable[..., Any], contents: Callable[..., Any], to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, report = export(to, *FORMATS[to])
    publish = part.storage.publish
    left = 9

    def fail_later(uri: str, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("the disk is full")
        publish(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(part.storage, "publish", fail_later)
        with pytest.raises(OSError, match="the disk is full"):
            export(to, *FORMATS[to], out=tmp_path / "died")
    committed = set((tmp_path / "died" / "_moss_tok" / "parts").iterdir())
    assert 0 < len(committed) < 8
    assert not (tmp_path / "died" / "_SUCCESS").exists()
    times = {path: path.stat().st_mtime_ns for path in committed}
    again, resumed = export(to, *FORMATS[to], out=tmp_path / "died")
    assert contents(again) == contents(whole)
    assert resumed == report
    assert {path: path.stat().st_mtime_ns for path in committed} == times, "a committed part was done again"


@pytest.mark.slow
def test_several_processes_write_the_same_bytes_even_after_one_was_killed(
    export: Callable[..., Any], contents: Callable[..., Any], dataset: Path, tmp_path: Path
):
    alone, report = export("moss-tts", "references.enabled=true")
    settings = ["references.enabled=true", "export.workers=2"]
    killed: list[int] = []

    def kill_one(what: str, done: int, total: int) -> None:
        if (what, done) == ("exporting", 1):
            victim = next(child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline()))
            victim.kill()
            killed.append(victim.pid)

    given = {"dataset": {"uri": str(dataset)}, "export": {"to": "moss-tts", "uri": str(tmp_path / "two")}}
    with pytest.raises(WorkerDied, match=r"one of 2 processes .* died.*the same command continues"):
        run_export(load_export_config(None, settings, given), kill_one)
    assert len(killed) == 1
    assert 0 < len(parts(tmp_path / "two")) < 8
    together, resumed = export("moss-tts", *settings, out=tmp_path / "two")
    assert contents(together) == contents(alone)
    assert resumed == report


def test_a_finished_export_reads_no_codes_again(export: Callable[..., Any], dataset: Path, tmp_path: Path):
    copy = tmp_path / "codes"
    shutil.copytree(dataset, copy)
    folder, report = export("nemo", "asr.buckets=3", uri=copy)
    shutil.rmtree(copy / "data")
    again, second = export("nemo", "asr.buckets=3", uri=copy, out=folder)
    assert (again, second) == (folder, report)


def test_files_are_closed_when_they_are_full(export: Callable[..., Any], contents: Callable[..., Any], tmp_path: Path):
    few, _ = export("moss-tts")
    many, report = export("moss-tts", "export.file_bytes=20000", out=tmp_path / "many")
    assert report.files > 2 * len(list((few / "train").iterdir()))
    joined = {
        folder: b"".join(data for name, data in sorted(contents(folder / "train").items())) for folder in (few, many)
    }
    assert joined[few] == joined[many]
    assert max(map(len, contents(many / "train").values())) < 20_000 + 100_000


def test_other_settings_into_the_same_folder_are_refused_by_name(export: Callable[..., Any], tmp_path: Path):
    folder, _ = export("nemo", "filters.min_seconds=1")
    with pytest.raises(ExportMismatch, match=r"filters\.min_seconds: the export has 1\.0, these settings 2\.0"):
        export("nemo", "filters.min_seconds=2", out=folder)
    with pytest.raises(ExportMismatch, match=r"settings\.export\.to: the export has 'nemo'"):
        export("lhotse", "filters.min_seconds=1", out=folder)
    (tmp_path / "list.txt").write_text("an id")
    with pytest.raises(ExportMismatch, match="reject_lists"):
        export("nemo", "filters.min_seconds=1", f"filters.reject_lists=[{tmp_path}/list.txt]", out=folder)


def test_a_folder_with_other_files_is_not_written_into(export: Callable[..., Any], dataset: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportMismatch, match="holds other files"):
        export("nemo", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ExportMismatch, match="holds other files"):
        export("nemo", out=dataset)


@pytest.fixture(scope="module")
def unfinished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of which one shard has data and no manifest, as a death between the two leaves it."""
    copy = tmp_path_factory.mktemp("unfinished") / "codes"
    shutil.copytree(dataset, copy)
    (copy / "_SUCCESS").unlink()
    output = read_output(str(copy))
    largest = max(output.specs, key=lambda spec: len(list(read_rows(output, spec, 0))))
    Path(output.layout.manifest(largest.shard_id)).unlink()
    return copy


def test_only_committed_shards_are_exported_and_only_when_asked(
    export: Callable[..., Any],
    unfinished: Path,
    dataset: Path,
    json_lines: Callable[..., Any],
    clips: dict[str, ExportRow],
):
    with pytest.raises(ConfigError, match=r"7 of 8 shards are committed.*dataset\.partial=true"):
        export("nemo", uri=unfinished)
    folder, report = export("nemo", "dataset.partial=true", uri=unfinished)
    shards = {record["id"].rpartition("-")[0] for record in json_lines(folder / "train")}
    (missing,) = {clip_id.rpartition("-")[0] for clip_id in clips} - {path.stem for path in parts(folder)}
    assert missing not in shards
    assert report.rows == sum(not clip_id.startswith(missing) for clip_id in clips)
    with pytest.raises(ExportMismatch, match="shards: the export has 7, these settings 8"):
        export("nemo", uri=dataset, out=folder)


def parts(folder: Path) -> list[Path]:
    return list((folder / "_moss_tok" / "parts").iterdir())


def test_a_dataset_without_text_or_without_rows_says_so(export: Callable[..., Any], tmp_path: Path, corpus: Path):
    output = tmp_path / "silent"
    tokenize_in_process(demo_config(output, f"input.splits={{train: [{corpus}/folder/librivox/0880.wav]}}"))
    with pytest.raises(NothingToExport, match="all 1 rows are left out: no_text 1"):
        export("moss-tts", uri=output)
    assert not (tmp_path / "moss-tts" / "_SUCCESS").exists()
    with pytest.raises(NothingToExport, match="nothing to export: the dataset has no rows"):
        export("nemo", uri=Path(random_output(tmp_path / "empty" / "codes", shards=1, clips=0, frames=20)))
    assert not (tmp_path / "nemo" / "_SUCCESS").exists()
    _, report = export("tokens", "tokens.template=['{audio}']", uri=output)
    assert report.written == {"train": 1}


@pytest.mark.parametrize("harm", ["flipped", "short", "gone"])
def test_a_damaged_shard_is_named(export: Callable[..., Any], dataset: Path, tmp_path: Path, harm: str):
    copy = tmp_path / "codes"
    shutil.copytree(dataset, copy)
    victim = max((copy / "data" / "train").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    if harm == "flipped":
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif harm == "short":
        victim.write_bytes(data[:-100])
    else:
        victim.unlink()
    with pytest.raises((ValueError, OSError), match=victim.name):
        export("moss-tts", uri=copy)


def test_a_folder_that_is_no_dataset_is_named(export: Callable[..., Any], tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no output of moss-tok"):
        export("nemo", uri=tmp_path / "nothing")


def test_the_report_is_kept_with_the_export(export: Callable[..., Any]):
    folder, report = export("moss-tts", "filters.min_seconds=2")
    kept = json.loads((folder / "_moss_tok" / "report.json").read_text())
    assert kept["rows"] == report.rows
    assert kept["removed"] == report.removed
    assert kept["size"] == sum(path.stat().st_size for path in (folder / "train").iterdir())


def test_a_condition_leaves_out_the_clips_of_which_it_does_not_hold(
    clips: dict[str, ExportRow], export: Callable[..., Any], json_lines: Callable[[Path], list[dict[str, Any]]]
):
    """`origin` is a key of the metadata, which some clips do not have."""
    where = "duration > 1 and origin like '%pocketsphinx%'"
    folder, report = export("nemo", f"filters.where={where}")
    origins = {row.id: json.loads(row.metadata).get("origin") for row in clips.values()}
    wanted = {
        row.id for row in clips.values() if row.duration > 1 and "pocketsphinx" in (origins[row.id] or "") and row.text
    }
    assert len(wanted) == sum(report.written.values()) == len(json_lines(folder)) > 3
    assert report.removed["where"] > 0
    assert report.removed["where_null"] == sum(origins[row.id] is None and row.duration > 1 for row in clips.values())


def test_a_condition_that_is_none_is_refused_before_anything_is_written(export: Callable[..., Any], tmp_path: Path):
    with pytest.raises(ValueError, match="syntax error"):
        export("nemo", "filters.where=duration >")
    assert not (tmp_path / "nemo").exists()
