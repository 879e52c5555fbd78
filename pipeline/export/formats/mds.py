"""MDS: shards of samples as MosaicML Streaming reads them, with the index of all shards beside them.

The layout is that of `MDSWriter` and `NDArray` in github.com/mosaicml/streaming (`streaming/base/format/mds`, version 2
of the index). It is written here without that library, which asks for numpy before 2.2 and transformers before 5.

    shard    uint32 number of samples n; uint32 offsets of samples, n + 1; the columns as JSON; the samples
    sample   uint32 size of each column; the columns, in the order of their names
    ndarray  uint8 type; uint8 4 * dimensions + log2 of the bytes of a length; the lengths; the values
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.export.config import SamplesConfig
from pipeline.export.formats.sample import Sample, Samples
from pipeline.export.part import ExportFile, by_folder
from pipeline.export.selection import Removed, Selected

_TYPES = {"int16": 17, "int32": 33}


class Mds(Samples):
    """Writes a folder of shards for each split. With references, clips without one are left out: a column is full."""

    def __init__(self, config: SamplesConfig, references: bool) -> None:
        super().__init__(config)
        self._references = references
        columns = {
            "codes": "ndarray",
            "id": "str",
            "metadata": "json",
            **({"reference": "ndarray"} if references else {}),
        }
        self._config = {
            "column_encodings": list(columns.values()),
            "column_names": list(columns),
            "column_sizes": [None] * len(columns),
            "compression": None,
            "format": "mds",
            "hashes": [],
            "size_limit": None,
            "version": 2,
        }

    def entry(self, selected: Selected) -> tuple[str, bytes, int] | Removed:
        return self.group_entry([selected])

    def group_entry(self, group: Sequence[Selected]) -> tuple[str, bytes, int] | Removed:
        sample = self.sample(group)
        if self._references and sample.reference is None:
            return Removed("no_reference")
        encoded = self._encode(sample)
        return sample.split, encoded, len(encoded)

    def files(self, stem: str, entries: list[bytes]) -> Mapping[str, bytes]:
        columns = json.dumps(self._config, sort_keys=True).encode()
        start = 4 + 4 * (len(entries) + 1) + len(columns)
        stops = np.cumsum([len(sample) for sample in entries], dtype=np.int64) + start
        offsets = np.array([start, *stops.tolist()], np.uint32)  # raises OverflowError at 4 GiB
        return {f"{stem}.mds": b"".join([np.uint32(len(entries)).tobytes(), offsets.tobytes(), columns, *entries])}

    def index(self, files: Mapping[str, ExportFile]) -> Mapping[str, bytes]:
        return {
            f"{folder}/index.json": json.dumps(
                {"shards": [self._shard(name, file) for name, file in inside.items()], "version": 2}, sort_keys=True
            ).encode()
            for folder, inside in by_folder(files).items()
        }

    def _shard(self, name: str, file: ExportFile) -> dict[str, Any]:
        data = {"basename": name, "bytes": file["size"], "hashes": {}}
        return {**self._config, "samples": file["rows"], "raw_data": data, "zip_data": None}

    def _encode(self, sample: Sample) -> bytes:
        columns = [_array(sample.codes), sample.id.encode(), sample.metadata_json.encode()]
        if sample.reference is not None:
            columns.append(_array(sample.reference))
        return np.array([len(column) for column in columns], np.uint32).tobytes() + b"".join(columns)


def _array(array: np.ndarray) -> bytes:
    width = next(log for log in range(4) if max(array.shape) < 1 << 8 * 2**log)
    lengths = np.array(array.shape).astype(f"<u{2**width}").tobytes()
    return bytes([_TYPES[array.dtype.name], array.ndim << 2 | width]) + lengths + array.tobytes()
