"""Pushing: what lies in the output lies in the repo, nothing twice, and nothing that should stay here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from benchmarks.read import random_output
from pipeline.cli.main import main
from pipeline.dataset.dataset import read_output
from pipeline.export.hub import Push as Plan
from pipeline.export.hub import crowded, plan_push
from tests.hub import TOKEN, Hub, Repo, hub
from tests.pipeline.conftest import Tokenized
from tests.support import DEADLINE_SECONDS, ROOT, rows, run_command

Push = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(random_output(tmp_path_factory.mktemp("output") / "codes", shards=3, clips=40, frames=20))


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A finished output that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "codes"))


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client that may use a network, sends large files over HTTP, and has a token: it reads that on import."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    terminate = signal.getsignal(signal.SIGTERM)  # which the command sets for its process
    yield
    signal.signal(signal.SIGTERM, terminate)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.address)
        yield state


@pytest.fixture
def push(capsys: pytest.CaptureFixture[str]) -> Push:
    """The command; gives what it prints. No exit but the expected one, and never the token."""

    def run(output: Path, *options: str, status: int = 0) -> str:
        found = main(["push", str(output), "me/codes", *options])
        printed = capsys.readouterr()
        assert found == status, printed.err
        assert TOKEN not in printed.out + printed.err
        return printed.out if status == 0 else printed.err

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_private_repo_gets_every_file_and_loads_as_the_output_does(
    output: Path, push: Push, server: Hub, tmp_path: Path
):
    printed = push(output)
    repo = server.repos["me/codes"]
    assert repo.private
    assert repo.files == files_of(output)
    assert f"{server.address}/datasets/me/codes" in printed
    assert repo.commits[-1][-2:] == ["README.md", "_SUCCESS"], "who looks meanwhile does not find a card first"
    for path, data in repo.files.items():
        copy = tmp_path / "downloaded" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
    loaded = datasets.load_dataset(str(tmp_path / "downloaded"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 120


def test_what_was_pushed_is_read_over_hf_and_a_hub_dataset_is_an_input(
    output: Path, push: Push, server: Hub, tmp_path: Path
):
    push(output)
    audio = ROOT / "demo" / "corpus" / "parquet"
    files = {f"data/{path.name}": path.read_bytes() for path in audio.glob("*.parquet")}
    server.repos["me/speech"] = Repo(private=True, files=files)
    script = f"""
from pipeline.loading import load_codes
from tests.support import demo_config, tokenize_in_process
for streaming in (False, True):
    loaded = load_codes("hf://datasets/me/codes", streaming=streaming)
    print(sum(row["codes"].shape == (8, row["num_samples"] // 1920) for row in loaded))
tokenize_in_process(demo_config("{tmp_path}/made", "input.splits={{train: ['hf://datasets/me/speech/data/*.parquet']}}"))
"""
    environment = os.environ | {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["120", "120"]
    assert TOKEN not in result.stdout + result.stderr
    sources = {row["source"] for row in [*rows(tmp_path / "made"), *rows(tmp_path / "made", "rejects")]}
    assert sources == {f"hf://datasets/me/speech/{path}" for path in server.repos["me/speech"].files}
    total = sum(pq.read_metadata(path).num_rows for path in audio.glob("*.parquet"))
    assert len(rows(tmp_path / "made")) + len(rows(tmp_path / "made", "rejects")) == total


@pytest.mark.slow
def test_a_second_push_sends_nothing_and_one_after_a_failure_the_rest(output: Path, push: Push, server: Hub):
    server.fail_after = 0
    assert "Storage limit reached" in push(output, status=2)
    uploads = server.uploads
    assert uploads > 0
    server.fail_after = None
    push(output)
    assert server.uploads == uploads, "contents that arrived before the failure are not sent again"
    commits = len(server.repos["me/codes"].commits)
    lost = next(path for path in server.repos["me/codes"].files if path.startswith("data/"))
    assert "0 files sent" in push(output)
    assert len(server.repos["me/codes"].commits) == commits
    del server.repos["me/codes"].files[lost]
    assert "1 files sent" in push(output)
    assert server.repos["me/codes"].commits[-1] == [lost]


def test_a_changed_card_is_sent_and_nothing_else(output: Path, push: Push, server: Hub):
    push(output)
    with (output / "README.md").open("a") as card:
        card.write("\nMore.\n")
    push(output)
    assert server.repos["me/codes"].commits[-1] == ["README.md"]


def test_a_dry_run_needs_neither_network_nor_token_and_says_what_would_happen(
    output: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = files_of(output)
    (output / "data" / "train" / "feedfeedfeedfeed.parquet").write_bytes(b"unfinished")
    (output / "notes.txt").write_text("mine")
    (output / ".secret").write_text("mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_TOKEN")
    result = run_command("push", str(output), "me/codes", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "to me/codes, private" in result.stdout
    assert "left out: data/train/feedfeedfeedfeed.parquet: of a shard that is not committed" in result.stdout
    assert "left out: notes.txt: not part of the dataset" in result.stdout
    assert ".secret" not in result.stdout
    assert all(f"  {path}\n" in result.stdout for path in whole)
    assert "untrained" in result.stdout


def test_what_is_left_out_is_not_sent(output: Path, push: Push, server: Hub):
    whole = files_of(output)
    (output / "data" / "train" / "feedfeedfeedfeed.parquet").write_bytes(b"unfinished")
    (output / ".secret").write_text("mine")
    push(output)
    assert server.repos["me/codes"].files == whole


def test_an_incomplete_output_is_refused_unless_asked_for(output: Path, push: Push, server: Hub):
    spec = read_output(str(output)).specs[0]
    (output / f"_moss_tok/shards/{spec.shard_id}.json").unlink()
    (output / "_SUCCESS").unlink()
    assert "not complete, 1 of 3 shards are missing" in push(output, status=2)
    assert not server.repos
    read_output(str(output)).finish()
    push(output, "--incomplete")
    files = server.repos["me/codes"].files
    assert not any(spec.shard_id in path for path in files)
    assert b"**Incomplete:** 2 of 3" in files["README.md"]


def test_without_a_token_it_says_where_to_put_one(
    output: Path, push: Push, server: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in (printed := push(output, status=2))
    assert "pushing" not in printed, "no bar of what does not begin"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the hub refused" in push(output, status=2)
    assert not server.repos


def test_a_public_repo_gets_codes_only_with_public(output: Path, push: Push, server: Hub):
    server.repos["me/codes"] = Repo(private=False)
    assert "this repo is public" in push(output, status=2)
    assert not server.repos["me/codes"].files
    push(output, "--public")
    assert server.repos["me/codes"].files


def test_a_repo_of_another_dataset_is_not_mixed_with_this_one(output: Path, push: Push, server: Hub, tmp_path: Path):
    other = Path(random_output(tmp_path / "other" / "codes", shards=1, clips=3, frames=20))
    push(other)
    before = dict(server.repos["me/codes"].files)
    assert "holds another dataset" in push(output, status=2)
    assert server.repos["me/codes"].files == before


def test_a_damaged_shard_is_not_sent(output: Path, push: Push, server: Hub):
    path = next(output.glob("data/train/*.parquet"))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert f"{path.name}: differs from its manifest" in push(output, status=2)


@pytest.mark.parametrize("folder", ["data", "rejects"])
def test_a_committed_object_that_is_gone_is_named_with_the_remedy(
    tokenized: Tokenized, push: Push, server: Hub, tmp_path: Path, folder: str
):
    output = Path(shutil.copytree(tokenized.output, tmp_path / "made"))
    lost = next(output.glob(f"{folder}/*/*.parquet"))
    lost.unlink()
    for options in ([], ["--dry-run"]):
        assert f"{lost}: gone, although its shard is committed" in (printed := push(output, *options, status=2))
        assert f"moss-tok repair {output}" in printed
    assert not server.repos


def test_a_hub_that_cannot_be_reached_is_named_with_the_remedy(
    output: Path, push: Push, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "--dry-run needs no network" in push(output, status=2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot reach the hub at http://127.0.0.1:9" in push(output, status=2)


def test_the_name_of_a_repo_has_an_owner(output: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["push", str(output), "codes", "--dry-run"]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err


def test_an_object_store_is_pushed_without_a_copy_on_this_machine(output: Path, push: Push, server: Hub):
    bucket = fsspec.filesystem("memory")
    bucket.put(f"{output}/", "/bucket/codes/", recursive=True)
    try:
        assert main(["push", "memory://bucket/codes", "me/codes"]) == 0
        assert server.repos["me/codes"].files == files_of(output)
    finally:
        bucket.rm("/bucket", recursive=True)


def test_an_output_without_a_card_is_refused(output: Path):
    (output / "README.md").unlink()
    with pytest.raises(OSError, match=r"no README\.md yet"):
        plan_push(read_output(str(output)), incomplete=True)


def test_folders_too_large_for_the_hub_are_told():
    sizes = {f"data/train/{number:016x}.parquet": 1 for number in range(10_001)}
    assert crowded(Plan(sizes, {})) == {"data/train": 10_001}
    assert crowded(Plan(dict(list(sizes.items())[:10_000]), {})) == {}
