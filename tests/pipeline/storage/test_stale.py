"""Temporary files: those of dead processes are removed, those of live ones are not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline import storage

NAME = ".a.parquet.0123456789ab.tmp"


def test_the_file_of_a_dead_writer_is_removed_wherever_it_lies(tmp_path: Path):
    leftovers = [tmp_path / NAME, tmp_path / "data" / "train" / NAME]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert storage.remove_stale(str(tmp_path)) == 2
    assert not any(path.exists() for path in leftovers)


def test_the_file_of_a_living_writer_stays(tmp_path: Path):
    with (tmp_path / NAME).open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert storage.remove_stale(str(tmp_path)) == 0
    assert (tmp_path / NAME).exists()


def test_a_writer_holds_its_file_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A removal at the worst moment, just before the file gets its name, takes nothing away."""
    removed = []
    link = os.link

    def remove_and_link(*names: str) -> None:
        removed.append(storage.remove_stale(str(tmp_path)))
        link(*names)

    monkeypatch.setattr(os, "link", remove_and_link)
    assert storage.create(str(tmp_path / "a.parquet"), b"whole")
    assert removed == [0]
    assert (tmp_path / "a.parquet").read_bytes() == b"whole"


def test_a_file_that_is_removed_before_its_writer_locks_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    removed = []
    lock = fcntl.flock

    def remove_and_lock(file: BinaryIO, operation: int) -> None:
        if not removed and not operation & fcntl.LOCK_NB:
            removed.append(0)
            removed[0] = storage.remove_stale(str(tmp_path))
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    assert storage.create(str(tmp_path / "a.parquet"), b"whole")
    assert removed == [1]
    assert (tmp_path / "a.parquet").read_bytes() == b"whole"


def test_nothing_else_is_touched(tmp_path: Path):
    others = [tmp_path / name for name in ("notes.tmp", ".hidden", ".a.tmp", "a.parquet")]
    for path in others:
        path.write_bytes(b"mine")
    assert storage.remove_stale(str(tmp_path)) == 0
    assert all(path.exists() for path in others)
