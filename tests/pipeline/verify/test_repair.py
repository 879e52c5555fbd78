"""Mending an output: manifests come back from the objects, damaged shards are done again, and nothing else changes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dataset.commit import OutputConflict, rebuild_manifest
from pipeline.dataset.dataset import read_output
from pipeline.dataset.layout import Layout
from pipeline.items import ShardSpec
from pipeline.monitoring import heartbeat
from pipeline.verify.repair import OutputInUse, repair
from tests.support import data_files, demo_config, run_command, tokenize_in_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("clean") / "codes"
    tokenize_in_process(demo_config(output, "input.clips_per_shard=20"))
    return output


@pytest.fixture
def output(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean, tmp_path / "codes")
    return tmp_path / "codes"


def first_with_rejects(output: Path) -> ShardSpec:
    opened = read_output(str(output))
    return next(spec for spec in opened.specs if Path(opened.layout.rejects(spec)).exists())


def finish(output: Path) -> None:
    tokenize_in_process(demo_config(output, "input.clips_per_shard=20"))


def test_an_output_without_damage_is_left_as_it_is(output: Path, clean: Path) -> None:
    repairs = repair(str(output), read=True)
    assert (repairs.sound, repairs.missing, repairs.rebuilt, repairs.undone) == (repairs.shards, 0, {}, {})
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == {
        output / path.relative_to(clean): path.read_bytes() for path in clean.rglob("*") if path.is_file()
    }


def test_every_manifest_can_be_lost(output: Path, clean: Path) -> None:
    before = read_output(str(output)).totals()
    shutil.rmtree(Layout(str(output)).manifests)
    repairs = repair(str(output))
    assert len(repairs.rebuilt) == repairs.shards
    totals = read_output(str(output)).totals()
    assert (totals.rows, totals.rejects, totals.frames) == (before.rows, before.rejects, before.frames)
    assert totals.rejects_by_reason == before.rejects_by_reason
    assert data_files(output) == data_files(clean)
    finish(output)
    assert (output / "_SUCCESS").exists()


def test_a_damaged_manifest_is_made_again(output: Path) -> None:
    spec = first_with_rejects(output)
    Path(Layout(str(output)).manifest(spec.shard_id)).write_bytes(b'{"rows": 1}')
    repairs = repair(str(output))
    assert list(repairs.rebuilt) == [spec.shard_id]
    assert "not a manifest" in repairs.rebuilt[spec.shard_id]
    assert repair(str(output)).sound == repairs.shards


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["data", "rejects"])
@pytest.mark.parametrize("damage", [gone, cut, flipped])
@pytest.mark.parametrize("manifest", ["sound", "lost"])
def test_a_damaged_shard_is_done_again_to_the_bytes_of_a_clean_run(
    output: Path, clean: Path, what: str, damage: Callable[[Path], None], manifest: str
) -> None:
    layout, spec = Layout(str(output)), first_with_rejects(output)
    damage(Path(layout.data(spec) if what == "data" else layout.rejects(spec)))
    if manifest == "lost":
        Path(layout.manifest(spec.shard_id)).unlink()
    repairs = repair(str(output), read=True)
    assert list(repairs.undone) == [spec.shard_id]
    assert not any(Path(uri).exists() for uri in (layout.data(spec), layout.rejects(spec)))
    assert repairs.sound == repairs.shards - 1
    assert not (output / "_SUCCESS").exists()
    finish(output)
    assert data_files(output) == data_files(clean)


def test_no_flip_in_a_footer_survives_a_lost_manifest(output: Path) -> None:
    """A manifest is made again only of an object that proves itself: of a damaged one it would vouch for the damage."""
    layout, spec = Layout(str(output)), first_with_rejects(output)
    data, chance = Path(layout.data(spec)).read_bytes(), random.Random(0)
    footer = range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data))
    for place in chance.sample(footer, 200):
        Path(layout.manifest(spec.shard_id)).unlink(missing_ok=True)
        Path(layout.data(spec)).write_bytes(
            data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        )
        with pytest.raises(OutputConflict, match="no whole shard"):
            rebuild_manifest(layout, spec)
    repairs = repair(str(output), read=True)
    assert (list(repairs.undone), repairs.rebuilt) == ([spec.shard_id], {})


def test_an_output_that_lost_data_is_not_called_complete_again(output: Path, clean: Path) -> None:
    layout, spec = Layout(str(output)), first_with_rejects(output)
    gone(Path(layout.data(spec)))
    with pytest.raises(FileNotFoundError, match=f"{spec.shard_id}.parquet: gone.*moss-tok repair"):
        finish(output)
    repair(str(output))
    finish(output)
    assert data_files(output) == data_files(clean)


def test_nothing_is_mended_beside_a_run_unless_forced(output: Path) -> None:
    layout, spec = Layout(str(output)), first_with_rejects(output)
    Path(layout.manifest(spec.shard_id)).unlink()
    heartbeat.publish(layout, heartbeat.first_beat("at-work"))
    with pytest.raises(OutputInUse, match=r"run at-work .* stop it"):
        repair(str(output))
    assert list(repair(str(output), force=True).rebuilt) == [spec.shard_id]


def test_without_reading_only_sizes_are_looked_at(output: Path) -> None:
    layout, spec = Layout(str(output)), first_with_rejects(output)
    flipped(Path(layout.data(spec)))
    assert repair(str(output)).undone == {}
    cut(Path(layout.data(spec)))
    assert "bytes instead of" in repair(str(output)).undone[spec.shard_id]


def test_the_command_says_what_it_did_and_what_is_left(output: Path) -> None:
    layout, spec = Layout(str(output)), first_with_rejects(output)
    cut(Path(layout.data(spec)))
    result = run_command("repair", str(output))
    assert result.returncode == 1
    assert f"shard {spec.shard_id}: undone" in result.stdout
    assert "1 undone" in result.stdout
    nowhere = run_command("repair", str(output / "nowhere"))
    assert nowhere.returncode == 2
    assert "no output of moss-tok" in nowhere.stderr
