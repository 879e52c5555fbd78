"""Log lines for people or for machines. This module alone decides how the lines of a process look.

Code logs as everywhere in Python: `logger.info("…", extra={"shard": …})`. The format `text` shows the message. The
format `json` makes each record an object on a line of its own, with its extra fields and those that hold for the whole
process. Times are UTC. Secrets of URIs are cut out of every line, wherever it comes from.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

from tqdm import tqdm

from pipeline.redaction import redact

LogFormat = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "plain"}


def configure(log_format: LogFormat, *, everything: bool = False, **context: object) -> None:
    """Let this process log to its standard error, with `context` in every line of JSON.

    The project's own modules log from INFO up, other libraries from WARNING up. In text for a person at a terminal,
    lines are shown from WARNING up, unless `everything` is set, as in the log of an actor.
    """
    handler = _Terminal()
    handler.setFormatter(JsonLines(context) if log_format == "json" else _Text(with_fields=everything))
    if log_format == "text" and not everything:
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or hasattr(record, "plain"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("pipeline", "moss_tok"):
        logging.getLogger(name).setLevel(logging.INFO)


def plain(**fields: object) -> dict[str, object]:
    """The `extra` of a line that a person sees without a prefix, whatever its level."""
    return {"plain": True, **fields}


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger and message, then all other fields."""

    def __init__(self, context: dict[str, Any]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context,
            **_fields(record),
        }
        if record.exc_info:
            document["error"] = self.formatException(record.exc_info)
        # ASCII, so that a name that is not UTF-8 can be written too.
        return json.dumps(_redacted(document), default=str, ensure_ascii=True)


class _Text(logging.Formatter):
    """A record as a line for people, with time and fields where nothing else shows them."""

    def __init__(self, with_fields: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s" if with_fields else "%(levelname)s: %(message)s")
        self.converter = time.gmtime
        self._with_fields = with_fields

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "plain") and not self._with_fields:
            return redact(record.getMessage())
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return redact(super().format(record) + (fields if self._with_fields else ""))


class _Terminal(logging.Handler):
    """Standard error, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace").decode()
            tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _redacted(document: dict[str, Any]) -> dict[str, Any]:
    return {name: redact(value) if isinstance(value, str) else value for name, value in document.items()}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and name[0] != "_"}
