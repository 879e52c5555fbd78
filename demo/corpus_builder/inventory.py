"""The list of every clip in the corpus and how it must end: as a row or as a reject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .audio import measure
from .clip import Clip
from .packings import write_jsonl


def write_inventory(clips: Sequence[Clip], sources: Mapping[tuple[str, str], Path], corpus: Path) -> None:
    """Write `inventory.jsonl`; `sources` gives the file of each (packing, key).

    Raises ValueError where two clips of a packing share a key.
    """
    names = [(clip.packing, clip.key) for clip in clips]
    if len(set(names)) < len(names):
        raise ValueError(f"keys occur twice: {sorted({name for name in names if names.count(name) > 1})}")
    lines = (_line(clip, sources[clip.packing, clip.key].relative_to(corpus)) for clip in clips)
    write_jsonl(corpus / "inventory.jsonl", lines)


def _line(clip: Clip, source: Path) -> dict[str, Any]:
    """The measures of a broken clip are null: nobody should trust what its header says."""
    measured = measure(clip.data) if clip.defect is None and clip.data is not None else None
    return {
        "packing": clip.packing,
        "source": source.as_posix(),
        "key": clip.key,
        "expected": "row" if clip.defect is None else "reject",
        "defect": clip.defect,
        "container": measured.container if measured else clip.suffix.lstrip("."),
        "codec": measured.codec if measured else None,
        "sample_rate": measured.sample_rate if measured else None,
        "channels": measured.channels if measured else None,
        "seconds": measured.seconds if measured else None,
        "has_text": clip.text is not None,
        "language": clip.language,
        "license": clip.license,
        "copyright": clip.copyright,
        "origin": clip.origin,
        "changes": clip.changes,
    }
