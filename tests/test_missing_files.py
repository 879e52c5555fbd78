"""Files that vanish from a run: many are an outage, a single one is a reject, and the same command goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.dataset.layout import Layout
from pipeline.dataset.opening import open_output
from pipeline.distributed import driver
from pipeline.monitoring import heartbeat
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
)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(8):
        shutil.copyfile(CORPUS / "folder" / "librivox" / "0870.wav", folder / f"{number}.wav")
    return folder


def settings(inputs: Path) -> list[str]:
    return [f"input.splits.train=['{inputs}']", "input.clips_per_shard=4"]


def command(output: Path, inputs: Path) -> list[str]:
    return ["tokenize", CONFIG, f"output.uri={output}", "cluster.actors=1", *settings(inputs)]


def test_an_outage_fails_the_run_and_the_same_command_ends_like_a_clean_one(
    inputs: Path, cluster_for_all: Mapping[str, str], tmp_path: Path
):
    output, clean = tmp_path / "codes", tmp_path / "clean"
    tokenize_in_process(demo_config(clean, *settings(inputs)))
    open_output(demo_config(output, *settings(inputs)))
    inputs.rename(tmp_path / "unmounted")
    failed = run_command(*command(output, inputs), environment=cluster_for_all)
    assert failed.returncode == 1
    assert "the folder is gone since it was planned" in failed.stderr
    assert "attempt 1 of 3" in failed.stderr
    assert not data_files(output)
    assert not (output / "_SUCCESS").exists()

    (tmp_path / "unmounted").rename(inputs)
    (inputs / "5.wav").rename(tmp_path / "away")
    single = run_command(*command(output, inputs), environment=cluster_for_all)
    assert single.returncode == 0, single.stderr
    assert (
        "Clips whose files are missing or out of reach: 1. To look for them again: moss-tok tokenize" in single.stderr
    )
    assert [row["reason"] for row in rows(output, "rejects")] == ["missing"]

    (tmp_path / "away").rename(inputs / "5.wav")
    jobs = [  # of which both want to replace the shard
        start_command(*command(output, inputs), environment=cluster_for_all) for _ in range(2)
    ]
    complaints = [job.communicate(timeout=DEADLINE_SECONDS)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], complaints
    tokenize_in_process(demo_config(output, *settings(inputs)))
    assert data_files(output) == data_files(clean)
    assert (output / "_SUCCESS").exists()
    verified = run_command("verify", str(output), "--sample", "0")
    assert verified.returncode == 0, verified.stdout


@pytest.mark.slow
def test_no_shard_is_replaced_beside_another_run(inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = demo_config(tmp_path / "codes", *settings(inputs))
    open_output(config)
    (inputs / "5.wav").rename(tmp_path / "away")
    tokenize_in_process(config)
    (tmp_path / "away").rename(inputs / "5.wav")
    before = data_files(tmp_path / "codes")
    layout = Layout(config.output.uri)
    heartbeat.publish(layout, heartbeat.first_beat("another"))
    summary = driver.run(config)
    assert data_files(tmp_path / "codes") == before
    assert "the run another is at work" in caplog.text
    assert summary.totals.rejects_by_reason == {"missing": 1}
    assert [beat.run_id for beat in heartbeat.read_heartbeats(layout)] == ["another"]
