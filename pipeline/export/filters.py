"""Which rows are left out, each for one reason that is counted: nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import storage
from pipeline.export.config import FilterConfig
from pipeline.export.rows import Row


class Filters:
    """The rules of a configuration, asked one row at a time."""

    def __init__(self, config: FilterConfig, need_text: bool = False) -> None:
        self._config = config
        self._need_text = need_text or config.require_text
        self._rejected = read_ids(config.reject_lists)

    def reason(self, row: Row) -> str | None:
        """Why the row is left out, as the first rule that it breaks; None if it stays."""
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
        return self._reason_of_text(row)

    def _reason_of_text(self, row: Row) -> str | None:
        rules, text = self._config, (row.text or "").strip()
        if not text:
            return "no_text" if self._need_text else None
        rate = len(text) / row.duration
        if rate < (rules.min_characters_per_second or 0):
            return "few_characters"
        if rules.max_characters_per_second is not None and rate > rules.max_characters_per_second:
            return "many_characters"
        return None


def read_ids(uris: Iterable[str]) -> frozenset[str]:
    """The ids of text files that hold one on each line; about 100 bytes of memory each. Raises ValueError."""
    ids: set[str] = set()
    for uri in uris:
        try:
            lines = storage.read_bytes(uri).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{uri}: a reject list is a text file with an id on each line: {error}") from error
        ids.update(line.strip() for line in lines if line.strip())
    return frozenset(ids)
