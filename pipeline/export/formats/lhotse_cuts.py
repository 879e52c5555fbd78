"""Lhotse Shar: cuts as gzipped JSONL, and beside each such file a tar with their codes as the array field `codes`.

`CutSet.from_shar(in_dir=…)` reads a folder; `cut.load_codes()` then gives int16 (frames, num_quantizers). The layout is
that of lhotse's `SharWriter`; a test compares both.

Or plain JSONL, with the codes as lists in the custom field `codes`, and `.jsonl.idx` beside it: the byte at which each
line begins, and the end. So lhotse's `StatelessSampler` finds any cut, and goes on from any step, in constant time.
Lhotse counts the length of a line in characters, so lines are ASCII.

Lhotse cuts arrays to the length of their cut, rounded to frames,
and would lose the last frame of half of the clips. So a cut is as long as its codes, and its supervision as the sound.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from pipeline.export.buckets import Buckets
from pipeline.export.config import AsrConfig
from pipeline.export.formats.archive import npy, tar
from pipeline.export.formats.moss_tts import frames_first, json_line
from pipeline.export.rows import ExportRow
from pipeline.export.selection import Selected

_BYTES_OF_A_ROW = 2048  # two headers, the array's manifest and the cut


class Lhotse:
    """Writes a folder of cuts per split, or per bucket of a split. In a file, clips are sorted by length."""

    need_text = True

    def __init__(self, config: AsrConfig, buckets: Buckets, samples_per_frame: int) -> None:
        self.need_codes = config.codes
        self._indexed = config.cuts == "jsonl"
        self._buckets = buckets
        self._samples_per_frame = samples_per_frame

    def entry(self, selected: Selected) -> tuple[str, ExportRow, int]:
        row = selected.row
        return self._buckets.folder(row.split, row.duration), row, row.codes.nbytes + _BYTES_OF_A_ROW

    def files(self, stem: str, entries: list[ExportRow]) -> Mapping[str, bytes]:
        entries.sort(key=lambda row: row.duration)
        if self._indexed:
            return self._indexed_jsonl(stem, entries)
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
            custom["codes"] = frames_first(row.codes) if self._indexed else self._array(row)
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

    def _indexed_jsonl(self, stem: str, rows: list[ExportRow]) -> Mapping[str, bytes]:
        lines = [json.dumps(self._cut(row), separators=(",", ":"), allow_nan=False) + "\n" for row in rows]
        begins = accumulate(map(len, lines), initial=0)
        index = "".join(f"{begin}\n" for begin in begins)
        return {f"cuts.{stem}.jsonl": "".join(lines).encode("ascii"), f"cuts.{stem}.jsonl.idx": index.encode("ascii")}

    def _tar(self, rows: list[ExportRow]) -> bytes:
        members = (
            member
            for row in rows
            for member in (
                (f"{row.id}.npy", npy(row.codes.T)),
                (f"{row.id}.json", json.dumps(self._array(row)).encode() + b"\n"),
            )
        )
        return tar(members)
