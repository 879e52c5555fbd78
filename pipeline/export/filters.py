"""Decides which rows are left out, each for one reason. Reasons are counted, so no row is lost without a trace."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pipeline import storage
from pipeline.export.config import FilterConfig
from pipeline.export.rows import ExportRow


class Filters:
    """The filters of a configuration."""

    def __init__(self, config: FilterConfig, need_text: bool = False) -> None:
        self._config = config
        self._need_text = need_text or config.require_text
        self._rejected = read_ids(config.reject_lists)

    def reason(self, row: ExportRow) -> str | None:
        """The first rule that the row breaks; None if it stays."""
        rules = self._config
        if row.id in self._rejected:
            return "reject_list"
        if row.duration < (rules.min_seconds or 0):
            return "too_short"
        if rules.max_seconds is not None and row.duration > rules.max_seconds:
            return "too_long"
        if rules.languages is not None and row.language not in rules.languages:
            return "other_language"
        if rules.max_silence is not None and row.silence > rules.max_silence:
            return "silence"
        if rules.max_clipping is not None and row.clipping > rules.max_clipping:
            return "clipping"
        if row.where is not True:
            return "where" if row.where is False else "where_null"
        return self._reason_of_text(row)

    def _reason_of_text(self, row: ExportRow) -> str | None:
        rules, text = self._config, (row.text or "").strip()
        if not text:
            return "no_text" if self._need_text else None
        if len(text) < (rules.min_characters_per_second or 0) * row.duration:
            return "few_characters"
        most = rules.max_characters_per_second
        if most is not None and len(text) > most * row.duration:
            return "many_characters"
        return None


def read_ids(uris: Iterable[str]) -> frozenset[str]:
    """Read the ids of text files with an id, or a JSON object with `id`, on each line. An id takes about 100 bytes.

    Lines of `moss-tok duplicates` with the action keep are ignored. Raises ValueError for a line that cannot be read,
    and FileNotFoundError.
    """
    ids: set[str] = set()
    for uri in uris:
        try:
            lines = storage.read_bytes(uri).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{uri}: a reject list is a text file with an id on each line: {error}") from error
        except FileNotFoundError:
            raise FileNotFoundError(f"{uri}: filters.reject_lists names this file, and it does not exist") from None
        ids.update(found for line in lines if (found := _rejected(uri, line)))
    return frozenset(ids)


def _rejected(uri: str, line: str) -> str | None:
    """The id that a line rejects, if any."""
    if not line.lstrip().startswith("{"):
        return line.strip() or None
    try:
        entry = json.loads(line)
        return None if entry.get("action") == "keep" else str(entry["id"])
    except (ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"{uri}: a JSON object without an id: {line[:100]}") from error
