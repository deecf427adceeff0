"""What the checks found: a line each while they run, then a file."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Line:
    """One check. `passed` is None where it was skipped, and `figure` then says why."""

    check: str
    figure: str
    passed: bool | None
    seconds: float = 0.0

    def __str__(self) -> str:
        word = {True: "pass", False: "FAIL", None: "skip"}[self.passed]
        return f"{word}  {self.check:<58} {self.figure}  ({self.seconds:.1f} s)"


class Skip(Exception):
    """Cannot run here; says why."""


Check = Callable[[], Iterator[Line]]


class Report:
    """Runs checks one after the other; what raises has failed, and the next one runs."""

    def __init__(self, device: str, machine: dict[str, Any]) -> None:
        self.device, self.machine = device, machine
        self.lines: list[Line] = []
        self._began = self._last = time.perf_counter()

    @property
    def failed(self) -> list[Line]:
        return [line for line in self.lines if line.passed is False]

    def run(self, name: str, check: Check) -> None:
        try:
            for line in check():
                self._add(line)
        except Skip as reason:
            self._add(Line(name, str(reason), None))
        except Exception as error:
            traceback.print_exc()
            self._add(Line(name, f"{type(error).__name__}: {str(error)[:300]}", False))

    def _add(self, line: Line) -> None:
        now = time.perf_counter()
        line = Line(line.check, line.figure, line.passed, round(now - self._last, 1))
        self._last = now
        self.lines.append(line)
        print(line, flush=True)

    def summary(self) -> str:
        skipped = sum(line.passed is None for line in self.lines)
        passed = len(self.lines) - skipped - len(self.failed)
        seconds = time.perf_counter() - self._began
        return f"{passed} passed, {len(self.failed)} failed, {skipped} skipped in {seconds:.0f} s"

    def write(self, folder: Path) -> Path:
        path = folder / f"gpu-smoke-{_slug(self.device)}.json"
        lines = [asdict(line) for line in self.lines]
        path.write_text(
            json.dumps({"machine": self.machine, "result": self.summary(), "checks": lines}, indent=1) + "\n"
        )
        return path


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
