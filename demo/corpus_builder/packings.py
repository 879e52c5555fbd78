"""Writes clips the three ways that users have their audio; the same clips give the same bytes."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, Features, Value

from .clip import Clip

SEED = 20240229
MODIFIED = 1_704_067_200  # 2024-01-01T00:00:00Z, the time of every tar member
NUM_TARS = 2
ROWS_PER_GROUP = 8

FEATURES = Features({"id": Value("string"), "audio": Audio(), "text": Value("string"), "language": Value("string")})


def write_folder(clips: Sequence[Clip], folder: Path) -> dict[str, Path]:
    """Write one file per clip and `manifest.jsonl` with one JSON object a line; returns the file of each key."""
    paths = {}
    lines = []
    for clip in clips:
        assert clip.data is not None
        path = paths[clip.key] = folder / clip.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip.data)
        text = {} if clip.text is None else {"text": clip.text}
        lines.append({"audio": clip.key, **text, **metadata(clip)})
    write_jsonl(folder / "manifest.jsonl", lines)
    return paths


def write_webdataset(clips: Sequence[Clip], folder: Path) -> dict[str, Path]:
    """Write the clips, shuffled as WebDatasets are, into `train-NNNNNN.tar`; returns the tar of each key.

    A sample is `<key>.<ext>` (audio), `<key>.json` (metadata) and, where there is a transcript, `<key>.txt`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shuffled = sorted(clips, key=lambda clip: clip.key)
    random.Random(SEED).shuffle(shuffled)
    paths = {}
    for number in range(NUM_TARS):
        path = folder / f"train-{number:06d}.tar"
        samples = shuffled[number::NUM_TARS]
        path.write_bytes(tar_bytes(member for clip in samples for member in _members(clip)))
        paths.update({clip.key: path for clip in samples})
    return paths


def write_parquet(clips: Sequence[Clip], folder: Path) -> dict[str, Path]:
    """Write the clips as Hugging Face Datasets stores audio: a struct of bytes and path, declared in the metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train-00000-of-00001.parquet"
    ordered = sorted(clips, key=lambda clip: clip.key)
    table = pa.Table.from_pylist(
        [
            {
                "id": clip.key,
                "audio": {"bytes": clip.data, "path": clip.key + clip.suffix},
                "text": clip.text,
                "language": clip.language,
            }
            for clip in ordered
        ],
        schema=FEATURES.arrow_schema,
    )
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP)
    return {clip.key: path for clip in ordered}


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar of (name, content) members whose bytes depend on nothing else."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mtime = MODIFIED
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


def metadata(clip: Clip) -> dict[str, Any]:
    """What is known of a clip beside its text, without the fields that it lacks."""
    fields = {
        "language": clip.language,
        "speaker": clip.speaker,
        "labels": list(clip.labels) or None,
        "license": clip.license,
        "origin": clip.origin,
    }
    return {name: value for name, value in fields.items() if value is not None}


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line in UTF-8."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _members(clip: Clip) -> list[tuple[str, bytes]]:
    assert clip.data is not None
    members = [(clip.key + clip.suffix, clip.data)]
    members.append((f"{clip.key}.json", json.dumps(metadata(clip), ensure_ascii=False).encode()))
    if clip.text is not None:
        members.append((f"{clip.key}.txt", clip.text.encode()))
    return members
