"""Lhotse Shar: cuts as gzipped JSONL, and beside each such file a tar with their codes as the array field `codes`.

`CutSet.from_shar(in_dir=…)` reads a folder; `cut.load_codes()` then gives int16 (frames, num_quantizers). The layout is
that of lhotse's `SharWriter`; a test compares both. Lhotse cuts arrays to the length of their cut, rounded to frames,
and would lose the last frame of half of the clips. So a cut is as long as its codes, and its supervision as the sound.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.export.buckets import Buckets
from pipeline.export.formats.moss_tts import json_line
from pipeline.export.rows import ExportRow
from pipeline.export.selection import Selected

_BYTES_OF_A_ROW = 2048  # two headers, the array's manifest and the cut


class LhotseShar:
    """Writes a folder of Shar per split, or per bucket of a split. In a file, clips are sorted by length."""

    need_text = True

    def __init__(self, with_codes: bool, buckets: Buckets, samples_per_frame: int) -> None:
        self.need_codes = with_codes
        self._buckets = buckets
        self._samples_per_frame = samples_per_frame

    def entry(self, selected: Selected) -> tuple[str, ExportRow, int]:
        row = selected.row
        return self._buckets.folder(row.split, row.duration), row, row.codes.nbytes + _BYTES_OF_A_ROW

    def files(self, stem: str, entries: list[ExportRow]) -> Mapping[str, bytes]:
        entries.sort(key=lambda row: row.duration)
        cuts = b"".join(json_line(self._cut(row)) for row in entries)
        files = {f"cuts.{stem}.jsonl.gz": gzip.compress(cuts, mtime=0)}
        if self.need_codes:
            files[f"codes.{stem}.tar"] = self._tar(entries)
        return files

    def _cut(self, row: ExportRow) -> dict[str, Any]:
        supervision = {
            "id": row.id,
            "recording_id": row.id,
            "start": 0.0,
            "duration": row.duration,
            "channel": 0,
            "text": row.text,
            **({"language": row.language} if row.language is not None else {}),
            **({"speaker": row.speaker_id} if row.speaker_id is not None else {}),
        }
        custom: dict[str, Any] = {"audio": row.audio, "num_samples": row.num_samples, "sample_rate": row.sample_rate}
        if row.start is not None:
            custom["offset"] = row.start
        if self.need_codes:
            custom["codes"] = self._array(row)
        duration = row.num_frames * self._samples_per_frame / row.sample_rate
        return {
            "id": row.id,
            "start": 0,
            "duration": duration,
            "channel": 0,
            "supervisions": [supervision],
            "custom": custom,
            "type": "MonoCut",
        }

    def _array(self, row: ExportRow) -> dict[str, Any]:
        array = {"storage_type": "shar", "storage_path": "", "storage_key": "", "shape": list(row.codes.T.shape)}
        return {
            "array": array,
            "temporal_dim": 0,
            "frame_shift": self._samples_per_frame / row.sample_rate,
            "start": 0,
        }

    def _tar(self, rows: list[ExportRow]) -> bytes:
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as tar:
            for row in rows:
                array = io.BytesIO()
                np.save(array, np.ascontiguousarray(row.codes.T), allow_pickle=False)
                _add(tar, f"{row.id}.npy", array.getvalue())
                _add(tar, f"{row.id}.json", json.dumps(self._array(row)).encode() + b"\n")
        return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
