"""Debian packages as a source of recordings, and one of npm: download and unpack them, without root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


class PackageError(RuntimeError):
    """A package cannot be had; the message names it and says what is needed."""


def fetch(names: Sequence[str], folder: Path) -> list[Path]:
    """Download the packages that are not in `folder` yet, with apt-get. Returns a file for each name, in order.

    A package that lies there in any version is taken as it is, so a folder that was filled elsewhere works on any
    system that has dpkg. Raises PackageError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        _run(["apt-get", "download", *missing], folder, "put the .deb files of these packages into the folder yourself")
    return [sorted(folder.glob(f"{name}_*.deb"))[-1] for name in names]


def fetch_from_npm(name: str, version: str, folder: Path) -> Path:
    """Download an npm package, as a .tgz, unless it is in `folder`. Raises PackageError."""
    file = folder / f"{name}-{version}.tgz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(["npm", "pack", f"{name}@{version}"], folder, f"put {file.name}, npm's file, into the folder yourself")
    return file


def unpack(package: Path, root: Path) -> None:
    """Unpack a package file below `root`, which then looks like the root of a Debian system. Raises PackageError."""
    root.mkdir(parents=True, exist_ok=True)
    _run(["dpkg", "-x", str(package.resolve()), str(root.resolve())], root, "dpkg unpacks Debian packages")


def _run(command: list[str], folder: Path, advice: str) -> None:
    if shutil.which(command[0]) is None:
        raise PackageError(f"{command[0]} is not installed: {advice}")
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise PackageError(f"{' '.join(command)} failed: {result.stderr.strip()[-500:]}; {advice}")
