"""How a run shows that it lives: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from pipeline.totals import Totals, format_seconds

LOG_EVERY_SECONDS = 15.0


class Progress:
    """Shards, hours, speed, rejects and time left, of what this run does.

    On a terminal a bar is redrawn. Elsewhere a line is printed when the first shard is done, at most every quarter of
    a minute after that, and at the end, so that a log of a week stays readable.
    """

    def __init__(self, shards: int, done_before: int) -> None:
        self._bar = tqdm(
            total=shards + done_before,
            initial=done_before,
            unit="shard",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._shards = shards
        self._done_before = done_before
        self._started = time.monotonic()
        self._last_line = -LOG_EVERY_SECONDS
        self._drawn = 0
        self._totals = Totals()
        self._audio_seconds = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._totals.shards and not self._bar_shown:
            self._print_line()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def update(self, totals: Totals, audio_seconds: float) -> None:
        """Show the totals of this run's shards, and the audio encoded so far, open shards included."""
        self._totals = totals
        self._audio_seconds = max(self._audio_seconds, audio_seconds, totals.audio_seconds)
        if self._bar_shown:
            self._bar.set_postfix_str(self._figures(), refresh=False)
            self._bar.update(totals.shards - self._drawn)
            self._drawn = totals.shards
            self._bar.refresh()
        elif totals.shards and self.elapsed - self._last_line >= LOG_EVERY_SECONDS:
            self._print_line()

    def note(self, line: str) -> None:
        """A line of text above the bar."""
        tqdm.write(line, file=sys.stderr)

    @property
    def _bar_shown(self) -> bool:
        return not self._bar.disable

    def _figures(self) -> str:
        speed = self._audio_seconds / max(self.elapsed, 1e-9)
        return f"{self._audio_seconds / 3600:.2f} h of audio, {speed:,.0f}x real time, {self._totals.rejects} rejects"

    def _print_line(self) -> None:
        self._last_line = self.elapsed
        done = self._done_before + self._totals.shards
        left = self.elapsed / self._totals.shards * (self._shards - self._totals.shards)
        when = f", about {format_seconds(left)} left" if self._totals.shards < self._shards else ""
        total = self._done_before + self._shards
        print(f"{done}/{total} shards, {self._figures()}{when}", file=sys.stderr, flush=True)
