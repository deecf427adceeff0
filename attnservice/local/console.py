"""The launcher's terminal. The children log to files; of that, this shows what a person wants to see."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import BinaryIO

_LINE = re.compile(r"^\S+ \S+ (?P<level>INFO|WARNING|ERROR|CRITICAL) (?P<logger>[\w.]+): (?P<text>.*)$")
_OURS = ("experiments", "workers")


def write_line(line: str, who: str = "") -> None:
    sys.stdout.write(f"{who + ' │ ':>14}{line}\n" if who else f"{line}\n")
    sys.stdout.flush()


def worth_showing(line: str) -> str | None:
    """Messages of our own code, and warnings of all. The rest is in the log."""
    match = _LINE.match(line)
    if not match:
        return None
    level, text = match["level"], match["text"]
    if level == "INFO":
        return text if match["logger"].split(".")[0] in _OURS else None
    return f"{level}: {text}"


class Tail:
    """Follows a log file from its current end. A file, not a pipe: a stopped launcher blocks no child."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open(at_end=True)

    def _open(self, *, at_end: bool = False) -> None:
        if self._path.exists():
            self._file = self._path.open("rb")
            if at_end:
                self._file.seek(0, 2)

    def show(self) -> None:
        if self._file is None:
            self._open()
        if self._file is None:
            return
        *lines, self._rest = (self._rest + self._file.read(2**20)).split(b"\n")
        for line in lines:
            if text := worth_showing(line.decode(errors="replace")):
                write_line(text, self._name)
