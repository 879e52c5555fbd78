"""Debian packages: download, unpack without root, and read what their copyright files say about a file."""

from __future__ import annotations

import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

LANGUAGES = ("en", "fr", "es", "it", "ru")

# The selection names files of these very versions; others may hold other recordings.
VERSIONS: dict[str, str] = {
    "pocketsphinx-testdata": "0.8+5prealpha+1-15",
    "sonic-pi-samples": "3.2.2~repack-8",
    **{
        f"asterisk-core-sounds-{language}{variant}": "1.6.1-1"
        for language in LANGUAGES
        for variant in ("", "-wav", "-g722")
    },
}


def download(folder: Path) -> None:
    """Download every package into `folder` with apt-get; needs no root, raises CalledProcessError if apt fails."""
    names = [f"{name}={version}" for name, version in VERSIONS.items()]
    subprocess.run(["apt-get", "download", *names], cwd=folder, check=True)


def unpack(packages: Path, root: Path) -> None:
    """Unpack every package found in `packages` below `root`, which then looks like the root of a Debian system.

    Raises FileNotFoundError where a package is missing in the version that the selection was made from.
    """
    for name, version in VERSIONS.items():
        path = packages / f"{name}_{version}_all.deb"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; the corpus is selected from {name} version {version}")
        subprocess.run(["dpkg", "-x", str(path), str(root)], check=True)


def copyright_file(root: Path, package: str) -> str:
    """The text of a package's copyright file."""
    return (root / "usr/share/doc" / package / "copyright").read_text(encoding="utf-8")


def license_and_holder(copyright_text: str, path: str) -> tuple[str, str]:
    """What a copyright file says of `path`: the licence's short name and the copyright holder.

    The last stanza whose `Files` match decides, as the format's definition says
    (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/, "Files"). Raises LookupError if none does.
    """
    found: dict[str, str] | None = None
    for stanza in map(_fields, copyright_text.split("\n\n")):
        if any(fnmatchcase(path, pattern) for pattern in stanza.get("Files", "").split()):
            found = stanza
    if found is None:
        raise LookupError(f"the copyright file says nothing of {path}")
    return found["License"].splitlines()[0].strip(), " ".join(found["Copyright"].split())


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] = fields.get(name, "") + "\n" + line.strip()
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields
