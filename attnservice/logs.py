"""Log lines as JSON, one object per line, with their run and attempt."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_about: ContextVar[dict[str, int] | None] = ContextVar("about", default=None)


@contextmanager
def about(run: int, attempt: int) -> Iterator[None]:
    """Inside, log lines of this thread name this attempt."""
    token = _about.set({"run": run, "attempt": attempt})
    try:
        yield
    finally:
        _about.reset(token)


class Json(logging.Formatter):
    """time, level, logger, message; run and attempt if known; error with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(_about.get() or {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
