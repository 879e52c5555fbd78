"""Missing files: many at once are an outage, and a single one is looked for again by the same command."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.config import Config
from pipeline.dataset.commit import OutputConflict, replace_shard, undo_shard
from pipeline.dataset.dataset import read_output
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import ShardManifest, read_manifest
from pipeline.dataset.opening import open_output
from pipeline.shard.tokenize import SourcesMissing
from tests.shards import ATTEMPT, SPEC, shard_bytes
from tests.support import CORPUS, data_files, demo_config, rows, tokenize_in_process

pytestmark = pytest.mark.slow

CLIPS = 12


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(CLIPS):
        shutil.copyfile(CORPUS / "folder" / "librivox" / "0870.wav", folder / f"{number:02}.wav")
    return folder


@pytest.fixture
def config(tmp_path: Path, inputs: Path) -> Callable[..., Config]:
    def make(output: str = "codes", *overrides: str) -> Config:
        return demo_config(
            tmp_path / output, f"input.splits.train=['{inputs}']", f"input.clips_per_shard={CLIPS // 2}", *overrides
        )

    return make


def plan_then_lose(config: Config, *files: Path) -> dict[Path, Path]:
    """Begin the output, then move the files away."""
    open_output(config)
    return lose(*files)


def lose(*files: Path) -> dict[Path, Path]:
    away = {file: file.with_suffix(".away") for file in files}
    for file, hidden in away.items():
        file.rename(hidden)
    return away


def bring_back(away: dict[Path, Path]) -> None:
    for file, hidden in away.items():
        hidden.rename(file)


def reasons(output: Path) -> Counter[str]:
    return Counter(row["reason"] for row in rows(output, "rejects"))


def root(config: Config) -> Path:
    return Path(config.output.uri)


def test_a_single_missing_file_is_a_reject_that_the_same_command_tries_again(
    config: Callable[..., Config], inputs: Path
) -> None:
    clean = config("clean")
    tokenize_in_process(clean)
    away = plan_then_lose(config(), inputs / "03.wav")
    tokenize_in_process(config())
    output = root(config())
    assert reasons(output) == {"missing": 1}
    assert (output / "_SUCCESS").exists()
    before = data_files(output)

    tokenize_in_process(config())
    assert data_files(output) == before, "it is still not there"

    bring_back(away)
    opened = open_output(config())
    assert len(opened.todo) == len(opened.retries) == 1
    tokenize_in_process(config())
    assert data_files(output) == data_files(root(clean))
    assert (output / "_SUCCESS").exists()
    totals = json.loads((output / "_moss_tok" / "totals.json").read_bytes())["totals"]
    assert (totals["rows"], totals["rejects"], totals["rejects_by_reason"]) == (CLIPS, 0, {})
    assert open_output(config()).todo == []


def test_only_where_it_is_wanted(config: Callable[..., Config], inputs: Path) -> None:
    away = plan_then_lose(config(), inputs / "03.wav")
    tokenize_in_process(config())
    bring_back(away)
    assert open_output(config("codes", "run.retry_rejects=[]")).todo == []
    assert len(open_output(config()).todo) == 1


@pytest.mark.parametrize("lost", [range(CLIPS), range(6), range(3, 6)], ids=["all", "a shard's", "half a shard's"])
def test_many_at_once_are_an_outage_and_nothing_of_it_is_committed(
    config: Callable[..., Config], inputs: Path, lost: range
) -> None:
    clean = config("clean")
    tokenize_in_process(clean)
    away = plan_then_lose(config(), *(inputs / f"{number:02}.wav" for number in lost))
    with pytest.raises(SourcesMissing, match=r"clips are missing, which is an outage .*run\.max_missing_fraction"):
        tokenize_in_process(config())
    assert not data_files(root(config()))
    bring_back(away)
    tokenize_in_process(config())
    assert data_files(root(config())) == data_files(root(clean))


def test_a_folder_that_is_gone_is_an_outage_even_of_a_single_file(
    config: Callable[..., Config], inputs: Path, tmp_path: Path
) -> None:
    one_each = config("codes", "input.clips_per_shard=1")
    open_output(one_each)
    inputs.rename(tmp_path / "unmounted")
    with pytest.raises(RuntimeError, match=r"inputs: the folder is gone since it was planned"):
        tokenize_in_process(one_each)
    assert not data_files(root(one_each))


def test_the_files_behind_a_list_may_be_gone_too(config: Callable[..., Config], inputs: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.jsonl"
    listed.write_text("".join(json.dumps({"audio": str(file)}) + "\n" for file in sorted(inputs.iterdir())))
    of_list = config("codes", f"input.splits.train=['{listed}']")
    clean = config("clean", f"input.splits.train=['{listed}']")
    tokenize_in_process(clean)
    open_output(of_list)
    inputs.rename(tmp_path / "unmounted")
    with pytest.raises(SourcesMissing):
        tokenize_in_process(of_list)
    assert not data_files(root(of_list))
    (tmp_path / "unmounted").rename(inputs)
    away = lose(inputs / "07.wav")
    tokenize_in_process(of_list)
    assert reasons(root(of_list)) == {"missing": 1}
    bring_back(away)
    tokenize_in_process(of_list)
    assert data_files(root(of_list)) == data_files(root(clean))


def test_one_file_of_many_clips_is_a_single_file(config: Callable[..., Config], inputs: Path, tmp_path: Path) -> None:
    listed = tmp_path / "parts.jsonl"
    parts = [(name, start / 10) for name in ("00.wav", "01.wav") for start in range(6)]
    listed.write_text(
        "".join(json.dumps({"audio": str(inputs / name), "offset": at, "duration": 0.1}) + "\n" for name, at in parts)
    )
    of_list = config("codes", f"input.splits.train=['{listed}']", f"input.clips_per_shard={CLIPS}")
    away = plan_then_lose(of_list, inputs / "01.wav")
    tokenize_in_process(of_list)
    assert reasons(root(of_list)) == {"missing": 6}
    bring_back(away)
    tokenize_in_process(of_list)
    assert reasons(root(of_list)) == {}


def test_all_may_be_rejected_where_that_is_wanted(config: Callable[..., Config], inputs: Path) -> None:
    tolerant = config("codes", "run.max_missing_fraction=1")
    plan_then_lose(tolerant, *sorted(inputs.iterdir()))
    tokenize_in_process(tolerant)
    assert reasons(root(tolerant)) == {"missing": CLIPS}


def test_what_was_committed_stays_where_the_others_are_gone_meanwhile(
    config: Callable[..., Config], inputs: Path
) -> None:
    """Sources are often deleted once their codes are there: a file that comes back must not cost the rows of others."""
    away = plan_then_lose(config(), inputs / "03.wav")
    tokenize_in_process(config())
    before = data_files(root(config()))
    bring_back(away)
    lose(*(inputs / f"{number:02}.wav" for number in (0, 1, 2, 4, 5)))
    with pytest.raises(SourcesMissing):
        tokenize_in_process(config())
    assert data_files(root(config())) == before
    assert len(read_output(str(root(config()))).done) == 2


def test_a_shard_in_which_another_file_is_gone_now_is_not_replaced(config: Callable[..., Config], inputs: Path) -> None:
    away = plan_then_lose(config(), inputs / "03.wav")
    tokenize_in_process(config())
    before = data_files(root(config()))
    bring_back(away)
    lose(inputs / "04.wav")
    tokenize_in_process(config())
    assert data_files(root(config())) == before
    assert (root(config()) / "_SUCCESS").exists()


def test_a_file_that_is_back_and_broken_is_a_reject_of_its_own(config: Callable[..., Config], inputs: Path) -> None:
    (inputs / "03.wav").write_bytes(b"not audio")
    away = plan_then_lose(config(), inputs / "03.wav")
    tokenize_in_process(config())
    bring_back(away)
    tokenize_in_process(config())
    assert reasons(root(config())) == {"not_audio": 1}
    assert open_output(config()).todo == []


def test_a_folder_in_place_of_a_file_is_not_the_file(config: Callable[..., Config], inputs: Path) -> None:
    plan_then_lose(config(), inputs / "03.wav")
    tokenize_in_process(config())
    (inputs / "03.wav").mkdir()
    assert open_output(config()).todo == []


def test_a_name_that_is_not_utf8_is_found_again(config: Callable[..., Config], inputs: Path) -> None:
    name = inputs / "odd-\udcff.wav"
    (inputs / "03.wav").rename(name)
    away = plan_then_lose(config(), name)
    tokenize_in_process(config())
    assert reasons(root(config())) == {"missing": 1}
    bring_back(away)
    assert len(open_output(config()).todo) == 1


# The replacement of one committed shard by another, alone.


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "out"))


def replace(layout: Layout, objects: tuple[bytes, bytes], old: ShardManifest) -> ShardManifest:
    return replace_shard(layout, SPEC, *objects, ATTEMPT, old)


def committed(layout: Layout, rows: int, rejects: int) -> ShardManifest:
    from pipeline.dataset.commit import publish_shard

    return publish_shard(layout, SPEC, *shard_bytes(rows=rows, rejects=rejects, reason="missing"), ATTEMPT)


def test_a_shard_with_fewer_missing_clips_takes_the_place_of_the_old_one(layout: Layout) -> None:
    old = committed(layout, 20, 3)
    for uri in (layout.success, layout.totals):
        storage.publish(uri, b"of the old one")
    new = replace(layout, shard_bytes(rows=23, rejects=0), old)
    assert (new.rows, new.rejects) == (23, 0)
    assert read_manifest(layout, SPEC.shard_id) == new
    assert storage.stat(layout.rejects(SPEC)) is None
    assert storage.stat(layout.success) is storage.stat(layout.totals) is None


def test_one_that_gains_nothing_does_not(layout: Layout) -> None:
    old = committed(layout, 20, 3)
    assert replace(layout, shard_bytes(rows=20, rejects=3, reason="missing", versions={"torch": "3"}), old) == old
    assert read_manifest(layout, SPEC.shard_id) == old
    assert replace(layout, shard_bytes(rows=19, rejects=4, reason="missing"), old) == old
    assert replace(layout, shard_bytes(rows=19, rejects=4), old) == old, "fewer rows"


def test_a_reject_that_says_what_is_wrong_is_better_than_one_that_may_pass(layout: Layout) -> None:
    old = committed(layout, 20, 3)
    new = replace(layout, shard_bytes(rows=20, rejects=3, reason="empty"), old)
    assert read_manifest(layout, SPEC.shard_id) == new
    assert new.rejects_by_reason == {"empty": 3}


def test_one_of_other_clips_is_a_conflict(layout: Layout) -> None:
    old = committed(layout, 20, 3)
    with pytest.raises(OutputConflict, match="24 clips, and 23 were there"):
        replace(layout, shard_bytes(rows=24, rejects=0), old)
    assert read_manifest(layout, SPEC.shard_id) == old


def test_what_another_run_has_replaced_already_is_kept(layout: Layout) -> None:
    old = committed(layout, 20, 3)
    theirs = replace(layout, shard_bytes(rows=22, rejects=1, reason="missing"), old)
    assert replace(layout, shard_bytes(rows=23, rejects=0), old) == theirs
    assert read_manifest(layout, SPEC.shard_id) == theirs


def test_rejects_that_an_undone_shard_has_left_do_not_stand_in_the_way(layout: Layout) -> None:
    committed(layout, 20, 3)
    storage.remove(layout.manifest(SPEC.shard_id))
    storage.remove(layout.data(SPEC))
    assert committed(layout, 22, 1).rejects == 1
    undo_shard(layout, SPEC)
    storage.publish(layout.rejects(SPEC), b"left")
    assert committed(layout, 23, 0).rejects == 0
    assert storage.stat(layout.rejects(SPEC)) is None
