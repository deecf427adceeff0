"""The run's log before it is written: takes lines, returns bounded chunks."""

from __future__ import annotations

import threading
from collections import deque
from typing import BinaryIO

from workers.supervisor import limits


class Journal:
    """Log lines of one attempt: the trainer's output, its messages and the supervisor's own. Thread-safe."""

    def __init__(self, budget: int) -> None:
        self._budget = budget  # characters this attempt may still write
        self._lines: deque[str] = deque()
        self._pending = 0
        self._dropped = 0
        self._full = False
        self._lock = threading.Lock()
        self.tail: deque[str] = deque(maxlen=20)  # the last lines, for the detail of a crash

    def add(self, text: str) -> None:
        """Take a line, unless the budget is used up or too much waits to be written."""
        line = clean(text)[: limits.LOG_LINE]
        with self._lock:
            self.tail.append(line)
            if self._full:
                return
            if self._budget < len(line):
                self._full, line = True, "… the log has reached its limit; the rest is not kept"
            elif self._pending + len(line) > limits.LOG_PENDING:
                self._dropped += 1
                return
            self._budget -= len(line) + 1
            self._push(line)

    @property
    def full(self) -> bool:
        """Whether the budget is used up."""
        return self._full

    def take(self) -> str:
        """The next chunk to write, or an empty string."""
        with self._lock:
            if self._dropped and self._pending < limits.LOG_PENDING // 2:
                note, self._dropped = f"… {self._dropped} lines dropped: they came faster than they can be kept", 0
                self._push(note)
            chunk: list[str] = []
            size = 0
            while self._lines and size < limits.LOG_CHUNK:
                line = self._lines.popleft()
                chunk.append(line)
                size += len(line) + 1
            self._pending -= size
            return "\n".join(chunk) + "\n" if chunk else ""

    def _push(self, line: str) -> None:
        self._lines.append(line)
        self._pending += len(line) + 1


def clean(text: str) -> str:
    """A line that every database stores: no NUL, no line ends, only the last state of a progress bar."""
    return text.replace("\x00", "\ufffd").rstrip("\r\n").rsplit("\r", 1)[-1]


def copy_output(journal: Journal, output: BinaryIO) -> None:
    """Copy a trainer's stdout and stderr until they end; the body of a thread."""
    with output:
        while line := output.readline(limits.LOG_LINE):
            journal.add(line.decode(errors="replace"))
