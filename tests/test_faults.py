"""Interrupts, rivals and changed inputs: after each the output is, or becomes, that of a run that met none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.dataset import read_output
from pipeline.dataset.opening import open_output
from pipeline.shard.tokenize import tokenize_shard
from pipeline.steps.encode import load_encoder
from pipeline.steps.read import SourceChanged, read_shard
from tests.support import (
    CONFIG,
    CORPUS,
    DEADLINE_SECONDS,
    data_files,
    demo_config,
    rows,
    run_command,
    start_command,
    tokenize_in_process,
    wait_for,
)


def many_shards(output: Path) -> list[str]:
    return ["tokenize", CONFIG, f"output.uri={output}", "input.clips_per_shard=4", "cluster.actors=1"]


def start_and_wait_for_commits(output: Path, count: int, cluster: Mapping[str, str]) -> subprocess.Popen[str]:
    process = start_command(*many_shards(output), environment=cluster, start_new_session=True)
    wait_for(lambda: len(list((output / "_moss_tok" / "shards").glob("*.json"))) >= count or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    return process


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run in many small shards that nothing happened to."""
    output = tmp_path_factory.mktemp("clean") / "codes"
    tokenize_in_process(demo_config(output, "input.clips_per_shard=4"))
    return data_files(output)


def test_the_same_command_again_reads_no_audio_and_changes_nothing(tmp_path: Path, cluster_for_all: Mapping[str, str]):
    """Resume goes by manifests: with the committed sources gone, only the shard that was undone is read again."""
    corpus, output = tmp_path / "corpus", tmp_path / "codes"
    shutil.copytree(CORPUS / "webdataset", corpus)
    sources = f"input.splits.train=['{corpus}/*.tar']"
    tokenize_in_process(demo_config(output, sources))
    before = data_files(output)
    first, second = read_output(str(output)).specs
    os.unlink(first.uri)
    os.unlink(output / "_moss_tok" / "shards" / f"{second.shard_id}.json")
    os.unlink(output / "data" / "train" / f"{second.shard_id}.parquet")
    again = run_command("tokenize", CONFIG, sources, f"output.uri={output}", environment=cluster_for_all)
    assert again.returncode == 0, again.stderr
    assert data_files(output) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_run_before_its_end_and_says_how_to_go_on(
    clean: dict[str, bytes], cluster_for_all: Mapping[str, str], tmp_path: Path, number: signal.Signals
):
    output = tmp_path / "codes"
    process = start_and_wait_for_commits(output, 1, cluster_for_all)
    os.kill(process.pid, number)
    _, complaint = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    opened = read_output(str(output))
    assert len(opened.done) < len(opened.specs), "it went on to the end"
    assert "To resume: moss-tok tokenize" in complaint
    assert "Traceback" not in complaint
    tokenize_in_process(demo_config(output, "input.clips_per_shard=4"))
    assert data_files(output) == clean


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_python_drops_while_ray_starts_ends_the_run(tmp_path: Path, number: signal.Signals):
    """What a hook of `fork` raises is printed and dropped; here one is interrupted in the driver, and once."""
    hook = f"""
import os, signal
if os.environ.pop("INTERRUPT_A_FORK", None):
    numbers = [{int(number)}]
    os.register_at_fork(after_in_parent=lambda: [signal.raise_signal(numbers.pop()) for _ in numbers[:1]])
"""
    (tmp_path / "sitecustomize.py").write_text(hook)
    output = tmp_path / "codes"
    environment = {"PYTHONPATH": str(tmp_path), "INTERRUPT_A_FORK": "1"}
    ended = run_command(*many_shards(output), environment=environment)
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    assert "To resume: moss-tok tokenize" in ended.stderr
    assert not data_files(output)


def test_two_jobs_on_one_output_make_it_once(
    clean: dict[str, bytes], cluster_for_all: Mapping[str, str], tmp_path: Path
):
    output = tmp_path / "codes"
    jobs = [start_command(*many_shards(output), environment=cluster_for_all) for _ in range(2)]
    complaints = [job.communicate(timeout=DEADLINE_SECONDS)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], complaints
    assert data_files(output) == clean


def test_a_shard_that_cannot_be_read_fails_and_the_others_are_committed(
    cluster_for_all: Mapping[str, str], tmp_path: Path
):
    wrong = tmp_path / "wrong.parquet"
    pq.write_table(pa.table({"sound": ["not audio"]}), wrong)
    sources = f"['{CORPUS}/parquet/*.parquet', '{wrong}']"
    arguments = ["tokenize", CONFIG, f"input.splits.train={sources}", f"output.uri={tmp_path / 'codes'}"]
    result = run_command(*arguments, "run.max_attempts=2", environment=cluster_for_all)
    assert result.returncode == 1
    assert "no column audio among sound" in result.stderr
    assert "attempt 1 of 2" in result.stderr
    assert not (tmp_path / "codes" / "_SUCCESS").exists()
    assert "**Incomplete:**" in (tmp_path / "codes" / "README.md").read_text()
    assert rows(tmp_path / "codes")


def test_a_run_that_rejects_nearly_all_stops_and_says_how_to_go_on(cluster_for_all: Mapping[str, str], tmp_path: Path):
    corpus, output = tmp_path / "corpus", tmp_path / "codes"
    corpus.mkdir()
    for number in range(1_500):
        (corpus / f"{number:04}.wav").write_bytes(b"" if number % 3 else b"<html>not found</html>")
    settings = [f"input.splits.train=['{corpus}']", "input.clips_per_shard=100"]
    result = run_command("tokenize", CONFIG, f"output.uri={output}", *settings, environment=cluster_for_all)
    assert result.returncode == 1
    assert "clips of this run were rejected (100%), and run.max_reject_fraction is 0.5" in result.stderr
    assert "Most common: empty " in result.stderr
    assert "To resume: moss-tok tokenize" in result.stderr
    opened = read_output(str(output))
    assert 10 <= len(opened.done) < len(opened.specs)
    tokenize_in_process(demo_config(output, *settings))
    assert len(rows(output, "rejects")) == 1_500


def test_an_input_that_changed_since_the_plan_fails_its_shard(tmp_path: Path):
    corpus, output = tmp_path / "corpus", tmp_path / "codes"
    shutil.copytree(CORPUS / "webdataset", corpus)
    config = demo_config(output, f"input.splits.train=['{corpus}/*.tar']")
    opened = open_output(config)
    first, second = opened.specs
    with open(first.uri, "ab") as tar:
        tar.write(bytes(512))
    encoder = load_encoder(config.model, opened.record.num_quantizers, config.batch.max_frames)
    with pytest.raises(SourceChanged, match="changed since it was planned"):
        tokenize_shard(first, encoder, config, opened.record)
    os.unlink(first.uri)
    with pytest.raises(SourceChanged, match="gone since it was planned: put it back, or tokenize into a new output"):
        tokenize_shard(first, encoder, config, opened.record)
    assert tokenize_shard(second, encoder, config, opened.record).rows > 0
    assert not (output / "data" / "train" / f"{first.shard_id}.parquet").exists()


@pytest.mark.parametrize("gone", [[], ["0890.wav"]], ids=["all there", "another gone"])
def test_a_file_that_was_replaced_since_the_plan_fails_its_shard(gone: list[str], tmp_path: Path):
    corpus = tmp_path / "corpus"
    shutil.copytree(CORPUS / "folder" / "librivox", corpus)
    config = demo_config(tmp_path / "codes", f"input.splits.train=['{corpus}']")
    opened = open_output(config)
    shutil.copyfile(corpus / "0870.wav", corpus / "0880.wav")
    for name in gone:
        (corpus / name).unlink()
    with pytest.raises(SourceChanged, match=r"0880\.wav: changed since it was planned: put the old file back"):
        list(read_shard(opened.specs[0], config.input))
