"""JSONL for the finetuning scripts of MOSS-TTS. It contains codes, so their `prepare_data.py` is not needed.

The rules are those of `finetuning/README.md` and `finetuning/dataset.py` in github.com/OpenMOSS/MOSS-TTS:

- a line is a JSON object; `audio_codes` is required, an integer matrix (frames, num_quantizers);
- `text`, `language` (strings) and `tokens` (integer, frames) go into the prompt where they are not null;
- a reference is `ref_audio_codes`, one matrix, or `reference_audio_codes`, a list of matrices or nulls, one for each
  speaker; every matrix of a row has as many quantizers as `audio_codes`;
- `audio`, `ref_audio` and `reference` are paths, which are opened only where the codes are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.export.config import MossTtsConfig
from pipeline.export.references import Reference
from pipeline.export.selection import Selected


class MossTts:
    """Writes a folder of JSONL files for each split, for the option --train-jsonl."""

    need_text = True
    need_codes = True

    def __init__(self, config: MossTtsConfig) -> None:
        self._config = config

    def entry(self, selected: Selected) -> tuple[str, bytes, int]:
        line = json_line(self._record(selected))
        return selected.row.split, line, len(line)

    def files(self, stem: str, entries: list[bytes]) -> Mapping[str, bytes]:
        return {f"{stem}.jsonl": b"".join(entries)}

    def _record(self, selected: Selected) -> dict[str, Any]:
        row = selected.row
        record: dict[str, Any] = {"audio": row.address, "text": row.text}
        if row.language is not None:
            record["language"] = self._config.languages.get(row.language, row.language)
        if self._config.tokens:
            record["tokens"] = row.num_frames
        record["audio_codes"] = frames_first(row.codes)
        return record if selected.reference is None else record | self._reference(selected.reference)

    def _reference(self, reference: Reference) -> dict[str, Any]:
        codes = frames_first(reference.codes)
        if self._config.reference_field == "ref_audio":
            return {"ref_audio": reference.audio, "ref_audio_codes": codes}
        return {"reference": [reference.audio], "reference_audio_codes": [codes]}


def frames_first(codes: np.ndarray) -> list[list[int]]:
    """Codes (num_quantizers, frames) as lists (frames, num_quantizers)."""
    rows: list[list[int]] = codes.T.tolist()
    return rows


def json_line(record: Mapping[str, Any]) -> bytes:
    """A line of JSONL in UTF-8. Bytes of names that are not UTF-8 become escapes, which are read back unchanged."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
