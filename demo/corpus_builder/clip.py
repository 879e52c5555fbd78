"""One clip of the corpus, as every step of the builder passes it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Packing = Literal["folder", "webdataset", "parquet"]
PACKINGS: tuple[Packing, ...] = ("folder", "webdataset", "parquet")


@dataclass(frozen=True)
class Original:
    """A recording as its Debian package holds it.

    `data` are the bytes of the file, `suffix` its extension, `copyright` the holder as the package's copyright
    file words it, `origin` the package and the path inside it.
    """

    stem: str
    data: bytes
    suffix: str
    text: str | None
    language: str | None
    speaker: str | None
    license: str
    copyright: str
    origin: str


@dataclass(frozen=True)
class Clip:
    """A file of the corpus and what is known about it.

    `data` is None only where a Parquet row holds no bytes at all. `changes` says what was done to the original, as
    its licence asks. `defect` says in words why the clip must end as a reject, and is None for a sound clip.
    """

    packing: Packing
    stem: str
    suffix: str
    data: bytes | None
    text: str | None
    language: str | None
    speaker: str | None
    labels: tuple[str, ...]
    license: str
    copyright: str
    origin: str
    changes: str
    defect: str | None = None

    @property
    def key(self) -> str:
        """The name that is unique in the packing: the path in the folder, a name without folder or dot elsewhere."""
        return self.stem + self.suffix if self.packing == "folder" else self.stem.replace("/", "_")
