"""The progress bar of a command."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from typing_extensions import Never


class Bar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._what = ""
        self._bar = self._new(0)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done. A new `what` begins a new bar."""
        if what != self._what:
            self._bar.close()
            self._what = what
            self._bar = self._new(total)
        self._bar.update(done - self._bar.n)

    def _new(self, total: int) -> tqdm[Never]:
        hidden = total == 0 or not sys.stderr.isatty()
        return tqdm(total=total, desc=self._what, file=sys.stderr, disable=hidden, dynamic_ncols=True)
