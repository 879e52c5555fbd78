"""Chooses a reference for each clip: another clip of the same speaker, the same one in every run.

The clips of a speaker may be anywhere in a dataset, so all rows are read once before anything is written. For each
speaker of a split, the clips with the smallest hashes are kept with their codes in a temporary SQLite database on local
disk. Memory is SQLite's page cache, for a dataset of any size; the disk holds `candidates` clips per speaker (8 kB for
ten seconds of 32 layers). Then a clip gets one of its speaker's candidates, chosen by its own hash.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.export.config import ReferenceConfig
from pipeline.export.rows import ExportRow
from pipeline.items import stable_hash

_TABLE = """
create table if not exists candidate (
    split text, speaker text, rank text, id text, audio text, hash text, layers int, dtype text, codes blob,
    primary key (split, speaker, rank)
)"""


@dataclass(frozen=True, slots=True)
class Reference:
    """The clip to clone the voice from."""

    id: str
    audio: str
    """Address of its sound, as in `ExportRow.address`."""
    codes: np.ndarray
    """int16 (num_quantizers, frames)."""


class References:
    """Candidates of all speakers: collected with `consider`, then queried with `of`."""

    def __init__(self, database: Path, config: ReferenceConfig) -> None:
        self._config = config
        self._database = sqlite3.connect(database, isolation_level=None)
        self._database.execute("pragma journal_mode = off")  # the database is temporary
        self._database.execute("pragma synchronous = off")
        self._database.execute(_TABLE)
        self._database.execute("begin")

    def consider(self, split: str, row: ExportRow) -> None:
        """Keep the row, with its codes, if it is among the candidates of its speaker so far."""
        rules = self._config
        if row.speaker_id is None or not rules.min_seconds <= row.duration <= rules.max_seconds:
            return
        rank = self._hash("candidate", row.id)
        speaker = (split, row.speaker_id)
        count, last = self._database.execute(
            "select count(*), max(rank) from candidate where split = ? and speaker = ?", speaker
        ).fetchone()
        if count >= rules.candidates:
            if rank > last:
                return
            self._database.execute(
                "delete from candidate where split = ? and speaker = ? and rank = ?", (*speaker, last)
            )
        dtype = row.codes.dtype.newbyteorder("<")
        codes = np.ascontiguousarray(row.codes, dtype)
        values = (*speaker, rank, row.id, row.address, row.audio_xxh3, len(codes), dtype.str, codes.tobytes())
        self._database.execute("insert into candidate values (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def of(self, split: str, row: ExportRow) -> Reference | None:
        """The reference of a row, neither the row nor a copy of its sound under another id. None if there is none."""
        if row.speaker_id is None:
            return None
        found = self._database.execute(
            "select rank, id, audio, layers from candidate where split = ? and speaker = ? and id != ? and hash != ?"
            " order by rank",
            (split, row.speaker_id, row.id, row.audio_xxh3),
        ).fetchall()
        if not found:
            return None
        rank, clip_id, audio, layers = found[int(self._hash("choice", row.id), 16) % len(found)]
        dtype, data = self._database.execute(
            "select dtype, codes from candidate where split = ? and speaker = ? and rank = ?",
            (split, row.speaker_id, rank),
        ).fetchone()
        return Reference(clip_id, audio, np.frombuffer(data, dtype).reshape(layers, -1))

    def close(self) -> None:
        """Store the candidates, so that another process can open the database."""
        self._database.execute("commit")
        self._database.close()

    def _hash(self, purpose: str, clip_id: str) -> str:
        return stable_hash("reference", purpose, str(self._config.seed), clip_id)
