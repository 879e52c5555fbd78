"""JSONL manifests as NeMo reads them, with the codes in a field of their own.

A line has `audio_filepath`, `duration` in seconds and `text` (docs.nvidia.com/nemo/speech, "ASR datasets"), `lang` and
`speaker` where they are known, `offset` in seconds where the clip is a part of its file, `id`, and `audio_codes` as
frames x num_quantizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.export.buckets import Buckets
from pipeline.export.formats.moss_tts import frames_first, json_line
from pipeline.export.selection import Selected


class Nemo:
    """Writes a folder of manifests per split, or per bucket of a split. In a file, clips are sorted by length."""

    need_text = True

    def __init__(self, with_codes: bool, buckets: Buckets) -> None:
        self.need_codes = with_codes
        self._buckets = buckets

    def entry(self, selected: Selected) -> tuple[str, tuple[float, bytes], int]:
        row = selected.row
        record: dict[str, Any] = {"audio_filepath": row.audio, "duration": row.duration, "text": row.text, "id": row.id}
        if row.start is not None:
            record["offset"] = row.start
        if row.language is not None:
            record["lang"] = row.language
        if row.speaker_id is not None:
            record["speaker"] = row.speaker_id
        if self.need_codes:
            record["audio_codes"] = frames_first(row.codes)
        line = json_line(record)
        return self._buckets.folder(row.split, row.duration), (row.duration, line), len(line)

    def files(self, stem: str, entries: list[tuple[float, bytes]]) -> Mapping[str, bytes]:
        entries.sort(key=lambda entry: entry[0])
        return {f"{stem}.jsonl": b"".join(line for _, line in entries)}
