"""A folder that cannot be listed is told, never left out: fsspec's own find and glob leave it out without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from pipeline import storage
from pipeline.storage import StorageError
from tests.support import as_nobody, closed_to_others


@pytest.fixture
def bucket() -> Iterator[str]:
    for name in ("a.wav", "open/b.wav", "shut/c.wav", "shut/deeper/d.wav"):
        storage.publish(f"memory://walk/{name}", b"x")
    yield "memory://walk"
    fsspec.filesystem("memory").rm("/walk", recursive=True)


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception, int], None]:
    """Let listings of the folder fail, so many times."""
    memory = type(fsspec.filesystem("memory"))
    original = memory.ls

    def arm(folder: str, error: Exception, times: int = 1_000) -> None:
        left = [error] * times

        def ls(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
            if path.rstrip("/") == folder and left:
                raise left.pop()
            return original(self, path, *arguments, **options)

        monkeypatch.setattr(memory, "ls", ls)
        monkeypatch.setattr(memory, "find", AbstractFileSystem.find)  # as of most stores: not all levels at once

    return arm


def names(pattern: str, told: list[StorageError] | None = None) -> list[str]:
    infos = storage.list_objects(pattern) if told is None else storage.list_objects(pattern, told.append)
    return [info.uri.rpartition("/")[2] for info in infos]


@pytest.mark.parametrize("pattern", ["", "/**/*.wav", "/*/*.wav"])
def test_a_folder_below_that_cannot_be_listed_is_an_error_that_names_it(
    bucket: str, fail: Callable[..., None], pattern: str
) -> None:
    fail("/walk/shut", PermissionError("403"))
    with pytest.raises(StorageError, match="walk/shut: not allowed to list it"):
        names(bucket + pattern)


def test_whoever_wants_to_be_told_gets_the_rest(bucket: str, fail: Callable[..., None]) -> None:
    fail("/walk/shut", PermissionError("403"))
    told: list[StorageError] = []
    assert names(bucket, told) == ["a.wav", "b.wav"]
    assert len(told) == 1
    assert "walk/shut" in str(told[0])


def test_the_folder_that_was_asked_for_is_never_left_out(bucket: str, fail: Callable[..., None]) -> None:
    fail("/walk", PermissionError("403"))
    told: list[StorageError] = []
    for pattern in (bucket, f"{bucket}/*/*.wav"):
        with pytest.raises(StorageError, match="walk: not allowed to list it"):
            names(pattern, told)
    assert told == []


def test_a_listing_that_fails_once_is_tried_again(bucket: str, fail: Callable[..., None]) -> None:
    fail("/walk/shut", ConnectionResetError("cut"), 1)
    assert names(bucket) == ["a.wav", "b.wav", "c.wav", "d.wav"]


def test_a_folder_that_goes_while_it_is_listed_is_an_error(bucket: str, fail: Callable[..., None]) -> None:
    fail("/walk/shut", FileNotFoundError("gone"))
    with pytest.raises(StorageError, match="walk/shut: gone while its folder was listed"):
        names(bucket)


def test_a_local_folder_without_permission_is_an_error_that_names_it(tmp_path: Path) -> None:
    for name in ("a.wav", "shut/b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for pattern in (str(tmp_path), f"{tmp_path}/**/*.wav", f"{tmp_path}/*/*.wav"):
        with closed_to_others(tmp_path / "shut"):
            said = as_nobody(lambda pattern=pattern: str(storage.list_objects(pattern)))  # type: ignore[misc]
        assert said.startswith(f"AccessRefused: {tmp_path}/shut: not allowed to list it: check owner and mode of"), said
    assert names(str(tmp_path)) == ["a.wav", "b.wav"]
