"""LitData: chunks of samples and their index, written by the library's own `BinaryWriter`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.export.config import SamplesConfig
from pipeline.export.formats.sample import Samples
from pipeline.export.part import ExportFile, by_folder
from pipeline.export.selection import Removed, Selected
from pipeline.yaml_config import ConfigError

_ONE_CHUNK = 2**31  # samples


class LitData(Samples):
    """Writes a folder of chunks for each split. With references, clips without one are left out: samples are alike."""

    libraries = ("litdata",)

    def __init__(self, config: SamplesConfig, references: bool) -> None:
        super().__init__(config)
        self._references = references
        try:
            from litdata.streaming.writer import BinaryWriter
        except ImportError as error:
            raise ConfigError(f"export.to=litdata: {error}: pip install 'moss-tok[litdata]'") from error
        self._writer = BinaryWriter

    def entry(self, selected: Selected) -> tuple[str, dict[str, Any], int] | Removed:
        return self.group_entry([selected])

    def group_entry(self, group: Sequence[Selected]) -> tuple[str, dict[str, Any], int] | Removed:
        sample = self.sample(group)
        if self._references and sample.reference is None:
            return Removed("no_reference")
        item: dict[str, Any] = {"id": sample.id, "codes": sample.codes, "metadata": sample.metadata_json}
        if self._references:
            item["reference"] = sample.reference
        return sample.split, item, sample.nbytes

    def files(self, stem: str, entries: list[dict[str, Any]]) -> Mapping[str, bytes]:
        return {f"{stem}.bin": self._chunk(entries)[0]}

    def index(self, files: Mapping[str, ExportFile]) -> Mapping[str, bytes]:
        codes = np.zeros((1, 1), np.int16)
        example = {"id": "", "codes": codes, "metadata": "", **({"reference": codes} if self._references else {})}
        config = self._chunk([example])[1]
        return {
            f"{folder}/index.json": json.dumps(
                {"chunks": [_chunk(name, file) for name, file in inside.items()], "config": config}, sort_keys=True
            ).encode()
            for folder, inside in by_folder(files).items()
        }

    def _chunk(self, items: Sequence[dict[str, Any]]) -> tuple[bytes, dict[str, Any]]:
        """The bytes of a chunk, and what its index says of all chunks. The library writes to a folder alone."""
        with TemporaryDirectory(prefix="moss-tok-litdata-") as folder:
            writer = self._writer(folder, chunk_size=_ONE_CHUNK)
            for number, item in enumerate(items):
                writer[number] = item
            writer.done()
            (chunk,) = Path(folder).glob("*.bin")
            return chunk.read_bytes(), writer.get_config()


def _chunk(name: str, file: ExportFile) -> dict[str, Any]:
    return {"chunk_bytes": file["size"], "chunk_size": file["rows"], "dim": None, "filename": name}
