"""JSONL for the finetuning scripts of MOSS-TTS. It contains codes, so their `prepare_data.py` is not needed.

The rules are those of `finetuning/README.md` and `finetuning/dataset.py` of `moss_tts_delay` and `moss_tts_local` in
github.com/OpenMOSS/MOSS-TTS:

- a line is a JSON object; `audio_codes` is required, an integer matrix (frames, num_quantizers);
- `text`, `instruction`, `quality`, `sound_event`, `ambient_sound`, `language` (strings) and `tokens` (integer, frames)
  go into the prompt where they are not null;
- a reference is `ref_audio_codes`, one matrix, or `reference_audio_codes`, a list of matrices or nulls, one for each
  speaker; every matrix of a row has as many quantizers as `audio_codes`;
- `audio`, `ref_audio` and `reference` are paths, which are opened only where the codes are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.export.config import MossTtsConfig, PromptField
from pipeline.export.references import Reference
from pipeline.export.rows import ExportRow
from pipeline.export.selection import Removed, Selected

PROMPT_FIELDS: tuple[PromptField, ...] = ("instruction", "quality", "sound_event", "ambient_sound")


class MossTts:
    """Writes a folder of JSONL files for each split, for the option --train-jsonl."""

    need_codes = True

    def __init__(self, config: MossTtsConfig) -> None:
        self._config = config
        self.need_text = "text" in config.need

    def entry(self, selected: Selected) -> tuple[str, bytes, int] | Removed:
        record = self._record(selected)
        if not record.keys() >= set(self._config.need):
            return Removed("no_prompt")
        line = json_line(record)
        return selected.row.split, line, len(line)

    def files(self, stem: str, entries: list[bytes]) -> Mapping[str, bytes]:
        return {f"{stem}.jsonl": b"".join(entries)}

    def _record(self, selected: Selected) -> dict[str, Any]:
        row = selected.row
        record: dict[str, Any] = {"audio": row.address, **prompt(row, self._config)}
        if self._config.tokens:
            record["tokens"] = row.num_frames
        record["audio_codes"] = frames_first(row.codes)
        return record if selected.reference is None else record | self._reference(selected.reference)

    def _reference(self, reference: Reference) -> dict[str, Any]:
        codes = frames_first(reference.codes)
        if self._config.reference_field == "ref_audio":
            return {"ref_audio": reference.audio, "ref_audio_codes": codes}
        return {"reference": [reference.audio], "reference_audio_codes": [codes]}


def prompt(row: ExportRow, config: MossTtsConfig) -> dict[str, str]:
    """`text`, `language` and the other fields of the prompt that a clip has. Text that is another field is not text."""
    metadata = row.source_metadata | {"text": row.text, "labels": ", ".join(row.labels or ())}
    values = {"text": None if "text" in config.fields.values() else row.text, "language": language(row, config)}
    for field in PROMPT_FIELDS:
        value = metadata.get(config.fields.get(field, field))
        values[field] = value if isinstance(value, str) else None
    return {field: value for field, value in values.items() if value}


def language(row: ExportRow, config: MossTtsConfig) -> str | None:
    """The name of the language of a clip."""
    return None if row.language is None else config.languages.get(row.language, row.language)


def frames_first(codes: np.ndarray) -> list[list[int]]:
    """Codes (num_quantizers, frames) as lists (frames, num_quantizers)."""
    rows: list[list[int]] = codes.T.tolist()
    return rows


def json_line(record: Mapping[str, Any]) -> bytes:
    """A line of JSONL in UTF-8. Bytes of names that are not UTF-8 become escapes, which are read back unchanged."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
