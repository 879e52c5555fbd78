"""An output is never begun where it can only do harm; each such place is refused in a sentence of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import storage
from pipeline.config import Config, parse_config
from pipeline.dataset.opening import open_output
from pipeline.dataset.output_folder import check_output_folder
from pipeline.yaml_config import ConfigError
from tests.support import as_nobody, closed_to_others, run_command


def config_of(output: object, *inputs: object) -> Config:
    splits = {"train": [str(pattern) for pattern in inputs or ["/home/audio"]]}
    return parse_config({"input": {"splits": splits}, "output": {"uri": str(output)}, "model": {"name": "cat-tiny"}})


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("out\0put", "output.uri: .*NUL byte"),
        ("s3:///", "output.uri: .*s3:/// names no bucket: s3://BUCKET/FOLDER"),
        ("s3://", "output.uri: .*names no bucket"),
        ("s3:///codes", "output.uri: .*begins with a slash: s3://codes"),
    ],
)
def test_an_address_that_is_none_is_refused_with_the_key(uri: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(uri)
    with pytest.raises(ConfigError, match=said.replace("output.uri", "input.splits.train")):
        config_of("out", uri)


@pytest.mark.parametrize("uri", ["/", "/etc", "/etc/codes", "/proc/self", "/usr/lib/codes", "/dev", "/tmp/../etc"])
def test_folders_of_the_system_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="belongs to the operating system"):
        check_output_folder(config_of(uri))


def test_a_link_to_a_folder_of_the_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(ConfigError, match="/etc/codes belongs to the operating system"):
        check_output_folder(config_of(tmp_path / "link" / "codes"))


@pytest.mark.parametrize(
    "uri",
    ["/dev/shm/codes", "/usr/local/codes", "/tmp/codes", "/data", "/home/codes", "s3://etc/codes", "memory://etc"],
)
def test_folders_for_data_are_not(uri: str) -> None:
    check_output_folder(config_of(uri))


@pytest.mark.parametrize("root", ["/data", "s3://bucket/data", "memory://data"])
@pytest.mark.parametrize(
    ("output", "pattern", "said"),
    [
        ("audio/codes", "audio", "lies within the input"),
        ("audio", "audio", "holds the input"),
        ("audio/codes", "audio/", "lies within the input"),
        ("audio/codes", "**", "lies within the input"),
        ("audio/codes", "**/*.parquet", "lies within the input"),
        ("audio/codes", "audio/*/data/*/*.parquet", "lies within the input"),
        ("codes", "codes/audio", "holds the input"),
        ("codes", "codes/audio/*.wav", "holds the input"),
        ("codes", "codes/*.tar", "holds the input"),
        ("audio/codes", "audio/*.tar", None),
        ("audio/codes", "audio/**/*.wav", None),
        ("audio-codes", "audio", None),
        ("audio", "audio-2/*.wav", None),
        ("codes", "audio", None),
    ],
)
def test_output_and_input_do_not_lie_in_each_other(root: str, output: str, pattern: str, said: str | None) -> None:
    config = config_of(f"{root}/{output}", "/elsewhere", f"{root}/{pattern}")
    if said is None:
        check_output_folder(config)
    else:
        with pytest.raises(ConfigError, match=f"output.uri: .*{said} .*input.splits.train.*choose a folder beside it"):
            check_output_folder(config)


def test_links_do_not_hide_that_they_do(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "link").symlink_to("audio")
    with pytest.raises(ConfigError, match="lies within the input"):
        check_output_folder(config_of(tmp_path / "link" / "codes", tmp_path / "audio"))


def test_nothing_is_written_there(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    with pytest.raises(ConfigError, match="lies within"):
        open_output(config_of(tmp_path / "codes", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_local_folder_without_permission_says_whose_it_is_and_nothing_of_buckets(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir()
    with closed_to_others(tmp_path / "shut"):
        said = as_nobody(lambda: str(storage.create(str(tmp_path / "shut" / "codes" / "a"), b"x")))
    assert said.startswith(f"AccessRefused: {tmp_path}/shut/codes/a: not allowed to write it: check owner and mode of")
    assert "user id" in said
    assert "bucket" not in said


def test_the_command_refuses_before_it_does_anything(tmp_path: Path) -> None:
    for command in ("plan", "tokenize"):
        result = run_command(command, "configs/demo.yaml", "output.uri=/etc")
        assert result.returncode == 2
        assert result.stderr.strip().endswith("/etc belongs to the operating system: choose a folder for data")
