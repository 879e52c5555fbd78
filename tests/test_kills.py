"""SIGKILL at every step of a run: the same command again ends with the bytes of a run that nothing happened to.

Nothing in the product knows of this; tests/kills/sitecustomize.py says how it is done.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from dataclasses import asdict
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

from pipeline.dataset.opening import open_output
from tests.kills.sitecustomize import VARIABLE, Point, arm
from tests.support import (
    CONFIG,
    CORPUS,
    DEADLINE_SECONDS,
    FORKSERVER,
    data_files,
    demo_config,
    rows,
    run_command,
    tokenize_in_process,
)

# Objects are created in this order: plan, record, then of the first shard data, rejects and manifest, of the second
# data and manifest. At the end totals, card and _SUCCESS are published.
STEPS = {
    "while it lists the input": ("pipeline.storage", "list_objects", 1, "before"),
    "before the plan": ("pipeline.storage", "create", 1, "before"),
    "when the plan is written but has no name yet": ("os", "link", 1, "before"),
    "after the plan": ("pipeline.storage", "create", 1, "after"),
    "after the record": ("pipeline.storage", "create", 2, "after"),
    "while it reads": ("pipeline.steps.read.files", "RawClip", 2, "before"),
    "while it prepares": ("pipeline.steps.prepare", "Preparer.prepare", 2, "after"),
    "before it encodes": ("pipeline.steps.encode", "Encoder.launch", 1, "before"),
    "after it encoded": ("pipeline.steps.encode", "Encoder.launch", 1, "after"),
    "before the data": ("pipeline.storage", "create", 3, "before"),
    "when the data is half on the disk": ("os", "fsync", 5, "before"),
    "when the data is written but has no name yet": ("os", "link", 3, "before"),
    "when the data has its name": ("os", "link", 3, "after"),
    "between data and rejects": ("pipeline.storage", "create", 3, "after"),
    "when the rejects are written but have no name yet": ("os", "link", 4, "before"),
    "between rejects and manifest": ("pipeline.storage", "create", 4, "after"),
    "when the manifest is written but has no name yet": ("os", "link", 5, "before"),
    "after the manifest": ("pipeline.storage", "create", 5, "after"),
    "between data and manifest of a shard without rejects": ("pipeline.storage", "create", 6, "after"),
    "after the last manifest": ("pipeline.storage", "create", 7, "after"),
    "before the totals": ("pipeline.storage", "publish", 1, "before"),
    "between totals and card": ("pipeline.storage", "publish", 1, "after"),
    "when the card is written but has no name yet": ("os", "replace", 2, "before"),
    "between card and _SUCCESS": ("pipeline.storage", "publish", 2, "after"),
    "after _SUCCESS": ("pipeline.storage", "publish", 3, "after"),
}


def settings(inputs: Path) -> list[str]:
    return [f"input.splits.train=['{inputs}']", "input.clips_per_shard=2"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards: a clip and a reject, then two clips."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("librivox/0870.wav", "broken/nan.wav", "librivox/0880.wav", "sounds/perc_swash.wav"):
        shutil.copyfile(CORPUS / "folder" / name, folder / f"{len(list(folder.iterdir()))}.wav")
    return folder


@pytest.fixture(scope="module")
def clean(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("clean") / "codes"
    tokenize_in_process(demo_config(output, *settings(inputs)))
    files = data_files(output)
    assert len(files) == 3
    return files


def tokenize_and_die(output: Path, inputs: Path, point: Point) -> None:
    """The whole of a process that is to be killed."""
    arm(point)
    tokenize_in_process(demo_config(output, *settings(inputs)))


@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_is_killed_at_a_step_loses_and_doubles_nothing(
    step: str, inputs: Path, clean: dict[str, bytes], tmp_path: Path
):
    output = tmp_path / "codes"
    point = Point(*STEPS[step], mark=str(tmp_path / "mark"))
    process = FORKSERVER.Process(target=tokenize_and_die, args=(output, inputs, point))
    process.start()
    process.join(DEADLINE_SECONDS)
    assert process.exitcode == -signal.SIGKILL, "this step was never reached"
    assert data_files(output).items() <= clean.items(), "what is there is whole"
    tokenize_in_process(demo_config(output, *settings(inputs)))
    assert_equal_to(clean, output, inputs)


# A shard with a reject is done again: _SUCCESS and totals are removed, then its data, its rejects and its manifest;
# then it is created like any other, without rejects this time.
REPLACING = {
    "before it is undone": ("pipeline.storage", "remove", 1, "before"),
    "when nothing says any more that all is done": ("pipeline.storage", "remove", 2, "after"),
    "between data and rejects": ("pipeline.storage", "remove", 3, "after"),
    "between rejects and manifest": ("pipeline.storage", "remove", 4, "after"),
    "when all of it is gone": ("pipeline.storage", "remove", 5, "after"),
    "when the data is written but has no name yet": ("os", "link", 1, "before"),
    "between the new data and the new manifest": ("pipeline.storage", "create", 1, "after"),
    "after the new manifest": ("pipeline.storage", "create", 2, "after"),
    "between totals and card": ("pipeline.storage", "publish", 1, "after"),
    "before _SUCCESS": ("pipeline.storage", "publish", 3, "before"),
}


@pytest.mark.parametrize("step", REPLACING)
def test_a_process_that_is_killed_while_it_replaces_a_shard_loses_and_doubles_nothing(
    step: str, inputs: Path, tmp_path: Path
):
    output, moved = tmp_path / "codes", tmp_path / "inputs"
    shutil.copytree(inputs, moved)
    tokenize_in_process(demo_config(tmp_path / "clean", *settings(moved)))
    expected = data_files(tmp_path / "clean")
    open_output(demo_config(output, *settings(moved)))
    (moved / "2.wav").rename(tmp_path / "away")
    tokenize_in_process(demo_config(output, *settings(moved)))
    assert Counter(row["reason"] for row in rows(output, "rejects"))["missing"] == 1
    (tmp_path / "away").rename(moved / "2.wav")
    point = Point(*REPLACING[step], mark=str(tmp_path / "mark"))
    process = FORKSERVER.Process(target=tokenize_and_die, args=(output, moved, point))
    process.start()
    process.join(DEADLINE_SECONDS)
    assert process.exitcode == -signal.SIGKILL, "this step was never reached"
    tokenize_in_process(demo_config(output, *settings(moved)))
    assert_equal_to(expected, output, moved)


DEATHS = {
    "driver": ("pipeline.distributed.scheduler", "Scheduler.committed", 1, "before"),
    "actor that encodes": ("pipeline.steps.encode", "Encoder.launch", 1, "after"),
    "actor that has data but no manifest": ("pipeline.dataset.commit", "commit", 1, "before"),
    "reader": ("pipeline.steps.prepare", "Preparer.prepare", 2, "before"),
}


@pytest.mark.parametrize(("module", "name"), sorted({point[:2] for point in (STEPS | DEATHS).values()}))
def test_there_is_a_function_of_each_step(module: str, name: str):
    assert callable(attrgetter(name)(import_module(module)))


@pytest.mark.parametrize("who", DEATHS)
def test_a_run_with_ray_goes_on_after_its_own_death_and_outlives_that_of_the_others(
    who: str, inputs: Path, clean: dict[str, bytes], tmp_path: Path
):
    output, mark = tmp_path / "codes", tmp_path / "mark"
    environment = {
        VARIABLE: json.dumps(asdict(Point(*DEATHS[who], mark=str(mark)))),
        "PYTHONPATH": str(Path(__file__).parent / "kills"),
    }
    arguments = ["tokenize", CONFIG, f"output.uri={output}", "cluster.actors=1", *settings(inputs)]
    result = run_command(*arguments, environment=environment)
    assert mark.exists(), f"this step was never reached: {result.stderr}"
    assert result.returncode == (-signal.SIGKILL if who == "driver" else 0), result.stderr
    assert ("an actor that died" in result.stderr) == who.startswith("actor")
    if who == "driver":
        assert not (output / "_SUCCESS").exists()
        tokenize_in_process(demo_config(output, *settings(inputs)))
    assert_equal_to(clean, output, inputs)


def assert_equal_to(clean: dict[str, bytes], output: Path, inputs: Path) -> None:
    assert data_files(output) == clean
    keys = Counter(row["key"] for kind in ("data", "rejects") for row in rows(output, kind))
    assert keys == Counter(os.listdir(inputs))
    assert (output / "_SUCCESS").exists()
    assert not list(output.rglob("*.tmp"))
