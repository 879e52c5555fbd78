"""Whole outputs back to sound, as tasks: the same files as from one process, and none made twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.dataset.dataset import Output, read_output
from pipeline.loading import decode_tasks as module
from pipeline.loading.decode import SoundFiles, decode_rows, load_decoder
from pipeline.loading.decode_tasks import decode_task, decode_tasks
from pipeline.loading.rows import RowQuery, select_rows
from tests.pipeline.conftest import Tokenized
from tests.support import run_command


@pytest.fixture(scope="module")
def output(tokenized: Tokenized) -> Output:
    return read_output(str(tokenized.output))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(output: Output, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one process, from two layers."""
    folder = tmp_path_factory.mktemp("expected")
    _, rows = select_rows(output, RowQuery(start=1), 2)
    decode_rows(rows, SoundFiles(str(folder), "wav", False, output.record), lambda: load_decoder(output.record))
    return contents(folder)


@pytest.mark.slow
def test_tasks_make_the_files_of_one_process_and_none_again(
    output: Output, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "TASK_SECONDS", 1.0)
    tasks = decode_tasks(output, RowQuery(start=1), 2, str(tmp_path), "wav", None, "auto")
    assert len(tasks) > 1
    assert sum(task.rows for task in tasks) == len(expected)
    assert sum(decode_task(task).written for task in tasks) == len(expected)
    assert contents(tmp_path) == expected
    victim = tmp_path / min(expected)
    victim.unlink()
    again = [decode_task(task) for task in tasks]
    assert sum(done.written for done in again) == 1
    assert sum(done.existing for done in again) == len(expected) - 1
    assert contents(tmp_path) == expected


def test_small_shards_share_a_task(output: Output):
    (task,) = decode_tasks(output, RowQuery(), None, "sounds", "wav", None, "auto")
    assert len(task.ranges) > 1
    assert task.rows == select_rows(output, RowQuery())[0]
    assert task.layers == output.record.num_quantizers


@pytest.mark.slow
def test_the_command_decodes_on_ray(
    output: Output, expected: dict[str, bytes], cluster_for_all: Mapping[str, str], tmp_path: Path
):
    command = [
        "decode",
        output.layout.root,
        "--rows",
        "1:",
        "--num-quantizers",
        "2",
        "-o",
        tmp_path,
        "--workers",
        "ray",
    ]
    done = run_command(*command, environment=cluster_for_all)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == expected
    assert f"{len(expected)} more existed already" in run_command(*command, environment=cluster_for_all).stdout
    refused = run_command("decode", output.layout.root, "--id", "a", "-o", tmp_path, "--workers", "ray")
    assert "--workers takes ranges of rows" in refused.stderr
