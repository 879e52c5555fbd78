"""The record and the plan of an output can be lost: they are made again, or the message names the cause."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.dataset.dataset import read_output
from pipeline.dataset.opening import OutputMismatch, open_output
from pipeline.dataset.recovery import CannotRestore
from pipeline.verify.repair import repair
from tests.support import CORPUS, data_files, demo_config, run_command, tokenize_in_process

FILES = ("_moss_tok/run.json", "_moss_tok/plan.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `inputs` and the finished output `codes`."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "inputs").mkdir()
    for number in range(3):
        shutil.copy2(CORPUS / "folder" / "librivox" / "0870.wav", folder / "inputs" / f"{number}.wav")
    tokenize_in_process(config_of(folder / "codes", folder / "inputs"))
    return folder


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "codes", tmp_path / "codes")
    return tmp_path / "codes"


def config_of(output: Path, inputs: Path, *more: str) -> Config:
    return demo_config(output, f"input.splits.train=['{inputs}']", "input.clips_per_shard=2", *more)


def everything(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def gone(path: Path) -> None:
    path.unlink()


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [gone, damaged])
def test_repair_makes_each_of_them_again_to_the_byte(
    output: Path, made: Path, name: str, harm: Callable[[Path], None]
) -> None:
    before = everything(output)
    harm(output / name)
    with pytest.raises((FileNotFoundError, ValueError), match="moss-tok repair"):
        read_output(str(output))
    repairs = repair(str(output))
    assert repairs.restored == [str(output / name)]
    assert repairs.sound == repairs.shards == 2
    tokenize_in_process(config_of(output, made / "inputs"))
    assert everything(output) == before


@pytest.mark.parametrize("lost", [FILES[:1], FILES[1:], FILES], ids=["record", "plan", "both"])
def test_the_command_that_made_the_output_goes_on_with_it(output: Path, made: Path, lost: tuple[str, ...]) -> None:
    before = everything(output)
    for name in lost:
        gone(output / name)
    opened = open_output(config_of(output, made / "inputs"))
    assert len(opened.done) == len(opened.specs) == 2
    tokenize_in_process(config_of(output, made / "inputs"))
    assert everything(output) == before


def test_without_both_repair_says_what_to_do(output: Path) -> None:
    for name in FILES:
        gone(output / name)
    result = run_command("repair", str(output))
    assert result.returncode == 2
    assert "run.json and" in result.stderr
    assert "Give the `moss-tok tokenize` command that made this output again" in result.stderr
    assert "other files" not in result.stderr


def test_other_settings_are_not_taken_for_those_that_are_lost(output: Path, made: Path) -> None:
    before = data_files(output)
    gone(output / FILES[0])
    with pytest.raises(OutputMismatch, match=r"prepare\.max_seconds"):
        open_output(config_of(output, made / "inputs", "prepare.max_seconds=5"))
    gone(output / FILES[0])
    gone(output / FILES[1])
    with pytest.raises(CannotRestore, match="was made with other settings"):
        open_output(config_of(output, made / "inputs", "prepare.max_seconds=5"))
    assert data_files(output) == before


def test_an_input_that_has_changed_is_named(output: Path, made: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    shutil.copytree(made / "inputs", inputs)
    moved = tmp_path / "of-a-copy"
    tokenize_in_process(config_of(moved, inputs))
    gone(moved / FILES[1])
    (inputs / "1.wav").write_bytes((inputs / "1.wav").read_bytes() + b"\0")
    with pytest.raises(
        CannotRestore, match=r"plan.parquet.* cannot be made again: .*1\.wav: changed since it was committed"
    ):
        repair(str(moved))
    shutil.rmtree(inputs)
    with pytest.raises(
        CannotRestore, match=r"plan.parquet: lost, and the input cannot be listed again: .*nothing there"
    ):
        repair(str(moved))
    assert not (moved / FILES[1]).exists()


def test_files_that_came_later_are_in_a_plan_that_is_made_again(output: Path, made: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    shutil.copytree(made / "inputs", inputs)
    grown = tmp_path / "grown"
    tokenize_in_process(config_of(grown, inputs))
    gone(grown / FILES[1])
    for name in ("4.wav", "5.wav"):
        shutil.copy2(inputs / "0.wav", inputs / name)
    with pytest.raises(CannotRestore, match=r"has no shard .* which is committed"):
        repair(str(grown))  # 2.wav was a shard alone, and is one with 4.wav now


def test_a_folder_of_something_else_is_not_restored_into_an_output(made: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    with pytest.raises(OutputMismatch, match=r"holds other files, such as notes\.txt"):
        open_output(config_of(tmp_path / "other", made / "inputs"))
    with pytest.raises(FileNotFoundError, match="no output of moss-tok"):
        repair(str(tmp_path / "other"))
