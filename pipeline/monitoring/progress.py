"""Shows the progress of a run: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

from pipeline.dataset.totals import Totals
from pipeline.formatting import format_seconds
from pipeline.logs import LogFormat, plain

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 15.0


class Progress:
    """Shards, hours, speed, rejects and time left of this run.

    On a terminal, a bar is redrawn. Elsewhere a line is logged when the first shard is done, at most every quarter of a
    minute after that, and at the end, so that the log of a week stays readable. With JSON lines there is no bar.
    """

    def __init__(self, shards: int, done_before: int, log_format: LogFormat = "text") -> None:
        self._on_terminal = log_format == "text" and sys.stderr.isatty()
        self._bar = tqdm(
            total=shards + done_before,
            initial=done_before,
            unit="shard",
            disable=not self._on_terminal,
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._shards = shards
        self._done_before = done_before
        self._started = time.monotonic()
        self._last_line = -LOG_EVERY_SECONDS
        self._printed = ""
        self._done = 0
        self._failed = 0
        self._rejects = 0
        self._audio_seconds = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._done and not self._on_terminal:
            self._print_line()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def update(self, totals: Totals, audio_seconds: float, failed: int = 0) -> None:
        """Show the totals of this run's shards, and the seconds of audio encoded so far, including open shards.

        `failed` is the number of shards that were given up.
        """
        self._audio_seconds = max(self._audio_seconds, audio_seconds, totals.audio_seconds)
        self._rejects, self._failed = totals.rejects, failed
        newly, self._done = totals.shards - self._done, totals.shards
        if self._on_terminal:
            self._bar.set_postfix_str(self._figures(), refresh=False)
            self._bar.update(newly)
            self._bar.refresh()
        elif self._done and self.elapsed - self._last_line >= LOG_EVERY_SECONDS:
            self._print_line()

    def note(self, line: str, **fields: object) -> None:
        """Show a line above the bar; `fields` go into the JSON log."""
        logger.warning("%s", line, extra=plain(**fields))

    def _figures(self) -> str:
        speed = self._audio_seconds / max(self.elapsed, 1e-9)
        failed = f", {self._failed} shards failed" if self._failed else ""
        hours = f"{self._audio_seconds / 3600:.2f} h encoded"
        return f"{hours}, {speed:,.0f}x real time, {self._rejects} rejects{failed}"

    def _print_line(self) -> None:
        self._last_line = self.elapsed
        ahead = self._shards - self._done - self._failed
        left = format_seconds(self.elapsed / self._done * ahead)
        line = f"{self._done_before + self._done}/{self._done_before + self._shards} shards, {self._figures()}"
        line += f", about {left} left" if ahead else ""
        state = f"{self._done} {self._failed}"
        if ahead or state != self._printed:
            done = {"committed": self._done_before + self._done, "failed": self._failed, "rejects": self._rejects}
            logger.info("%s", line, extra=plain(**done, audio_seconds=self._audio_seconds))
        self._printed = state
