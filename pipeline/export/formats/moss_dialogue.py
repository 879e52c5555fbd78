"""JSONL of dialogues, for the finetuning scripts of MOSS-TTS-Realtime and of MOSS-TTSD.

The rules are those of `moss_tts_realtime/finetuning` (README.md, `dataset.py`) and of section 2.2 of
`moss_tts_local/finetuning/README.md` in github.com/OpenMOSS/MOSS-TTS:

- realtime: a line has `conversations`, a list of turns with `role` (user or assistant), `text`, `wav` and
  `audio_codes`, and where there is a reference `ref_wav` and `ref_audio_codes`. Codes have 16 quantizers: a matrix of
  16 rows is taken for one that lies on its side. All turns of the assistant are of one speaker, that of the reference;
- ttsd: a line has the `text` of all turns, each speaker marked as [S1], [S2], … in order of appearance, the codes of
  all turns end to end as `audio_codes`, and lists with a reference or null for each speaker.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.export.config import MossTtsConfig
from pipeline.export.formats.moss_tts import frames_first, json_line, language
from pipeline.export.formats.sample import outside
from pipeline.export.rows import ExportRow
from pipeline.export.selection import Removed, Selected

REALTIME_LAYERS = 16
_MARKED = re.compile(r"\s*\[S\d+\]")


class _Dialogues(ABC):
    """Writes a folder of JSONL files for each split, with a dialogue on each line."""

    need_text = True
    need_codes = True

    def __init__(self, config: MossTtsConfig) -> None:
        self._config = config

    def group(self, row: ExportRow) -> str | None:
        """What a clip has in common with the others of its dialogue; None if it is alone."""
        return None if self._config.conversation is None else row.group(self._config.conversation)

    def entry(self, selected: Selected) -> tuple[str, bytes, int] | Removed:
        return self.group_entry([selected])

    def group_entry(self, turns: Sequence[Selected]) -> tuple[str, bytes, int] | Removed:
        record = self._record(turns)
        if isinstance(record, Removed):
            return record
        line = json_line(record)
        return turns[0].row.split, line, len(line)

    def files(self, stem: str, entries: list[bytes]) -> Mapping[str, bytes]:
        return {f"{stem}.jsonl": b"".join(entries)}

    @abstractmethod
    def _record(self, turns: Sequence[Selected]) -> dict[str, Any] | Removed:
        """The object of a line."""


class Realtime(_Dialogues):
    """Dialogues of MOSS-TTS-Realtime. Roles are those of the field `role`; else the last speaker is the assistant."""

    def _record(self, turns: Sequence[Selected]) -> dict[str, Any] | Removed:
        last = turns[-1].row.speaker_id
        given = [turn.row.source_metadata.get("role") for turn in turns]
        if "assistant" in given or "user" in given:
            roles = ["assistant" if role == "assistant" else "user" for role in given]
        else:
            roles = ["assistant" if turn.row.speaker_id == last else "user" for turn in turns]
        assistant = [turn for turn, role in zip(turns, roles, strict=True) if role == "assistant"]
        if len({turn.row.speaker_id for turn in assistant}) != 1:
            return Removed("no_assistant")
        record: dict[str, Any] = {"id": turns[0].row.id}
        if reference := outside(assistant, turns):
            record |= {"ref_wav": reference.audio, "ref_audio_codes": frames_first(reference.codes)}
        record["conversations"] = [
            {"role": role, "text": row.text, "wav": row.address, "audio_codes": frames_first(row.codes)}
            for role, row in zip(roles, (turn.row for turn in turns), strict=True)
        ]
        return record


class Ttsd(_Dialogues):
    """Dialogues of MOSS-TTSD. Text that begins with the mark of a speaker is left as it is."""

    def _record(self, turns: Sequence[Selected]) -> dict[str, Any]:
        rows = [turn.row for turn in turns]
        speakers = list(dict.fromkeys(row.speaker_id for row in rows))
        record: dict[str, Any] = {"id": rows[0].id, "text": _marked_text(rows, speakers)}
        languages = {language(row, self._config) for row in rows} - {None}
        if len(languages) == 1:
            record["language"] = languages.pop()
        codes = [frame for row in rows for frame in frames_first(row.codes)]
        if self._config.tokens:
            record["tokens"] = len(codes)
        record["audio_codes"] = codes
        references = [outside([turn for turn in turns if turn.row.speaker_id == who], turns) for who in speakers]
        if any(references):
            record["reference"] = [reference and reference.audio for reference in references]
            record["reference_audio_codes"] = [reference and frames_first(reference.codes) for reference in references]
        return record


def _marked_text(rows: Sequence[ExportRow], speakers: list[str | None]) -> str:
    parts = []
    before = None
    for row in rows:
        text = row.text or ""
        mark = f"[S{speakers.index(row.speaker_id) + 1}]"
        parts.append(text if mark == before or _MARKED.match(text) else f"{mark} {text}")
        before = mark
    return " ".join(parts)
