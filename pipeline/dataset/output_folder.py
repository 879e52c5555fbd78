"""Whether a folder can be an output, checked before anything is listed or written."""

from __future__ import annotations

import os

from pipeline import storage
from pipeline.config import Config
from pipeline.yaml_config import ConfigError

SYSTEM_FOLDERS = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr")
DATA_IN_SYSTEM_FOLDERS = ("/dev/shm", "/usr/local")

_SAMPLES = ("README.md", "_moss_tok/plan.parquet", "_moss_tok/run.json", "_moss_tok/shards/0123456789abcdef.json")
"""Names of objects that every output has. A glob is tested with them."""


def check_output_folder(config: Config) -> None:
    """Raise ConfigError if the output is a folder of the system, or if output and input overlap.

    Then the next plan would list the codes as audio, or the output would hold its own source.
    """
    output = _real(storage.absolute(config.output.uri))
    if storage.is_local(config.output.uri):
        _refuse_system_folders(output)
    for split, patterns in config.input.splits.items():
        for pattern in patterns:
            _refuse_overlap(f"input.splits.{split}", _real(storage.absolute(pattern)), output)


def _refuse_system_folders(output: str) -> None:
    allowed = any(_within(output, folder) for folder in DATA_IN_SYSTEM_FOLDERS)
    if output == "/" or (not allowed and output.split("/")[1] in SYSTEM_FOLDERS):
        raise ConfigError(f"output.uri: {output} belongs to the operating system: choose a folder for data")


def _refuse_overlap(key: str, pattern: str, output: str) -> None:
    folder = storage.before_wildcards(pattern)
    if _within(folder, output):
        raise ConfigError(f"output.uri: {output} holds the input {pattern} ({key}): choose a folder beside it")
    inside = _within(output, pattern) if folder == pattern else _matches_an_output(pattern, output)
    if inside:
        raise ConfigError(
            f"output.uri: {output} lies within the input {pattern} ({key}), and would be listed as part of it: choose "
            "a folder beside it"
        )


def _matches_an_output(pattern: str, output: str) -> bool:
    samples = [f"{top}/{split}/0123456789abcdef.parquet" for top in ("data", "rejects") for split in ("train", "test")]
    return any(storage.matches(pattern, storage.join(output, name)) for name in (*_SAMPLES, *samples))


def _real(uri: str) -> str:
    """A local path with its links resolved. The part that does not exist yet is unchanged."""
    return os.path.realpath(uri or "/") if storage.is_local(uri or "/") else uri


def _within(uri: str, folder: str) -> bool:
    return uri == folder or uri.startswith(f"{folder.rstrip('/')}/")
