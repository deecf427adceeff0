"""Unhandled exceptions in the logs of a storm that no injected fault explains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

_TRACEBACK = "Traceback (most recent call last):"
_QUOTING = "billiard.einfo.ExceptionWithTraceback"  # the traceback that it quotes follows
_LINKS = ("The above exception was the direct cause", "During handling of the above exception")
_RAISED = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<words>.*))?$")
_AWAY = (
    r"connect|closed|terminat|shutting down|starting up|recovery|not accepting|is bad|lost synchronization|"
    r"consuming input|sending (data|query)|server (closed|is)|no such file|broken pipe|reset by peer|EOF"
)
# Raised by processes that talk to one that was killed or frozen; a deadlock, a missing table or a bug is none of them.
_CONSEQUENCES = [
    (
        r"(django\.db\.utils|psycopg(\.errors)?)\.(OperationalError|InterfaceError|AdminShutdown|CannotConnectNow)",
        _AWAY,
    ),
    (r"(django\.db\.utils|sqlite3)\.OperationalError", r"^database is locked"),  # the holder of the lock was frozen
    (r"redis\.exceptions\.(ConnectionError|TimeoutError|BusyLoadingError)", ""),
    (r"kombu\.exceptions\.OperationalError", ""),
    (r"(\w+\.)*(ConnectionRefusedError|ConnectionResetError|BrokenPipeError|ConnectionError)", ""),
    (r"billiard\.exceptions\.WorkerLostError", r"signal 9 \(SIGKILL\)"),
]


def complaints(log: str) -> list[str]:
    """One line for each exception in a log that is no consequence of a kill, and for each supervisor that failed."""
    return [f"{where} … {raised}" for where, raised in _exceptions(log.splitlines()) if not _explained(raised)]


def complaints_of(folder: Path) -> list[str]:
    """The same for every log in a folder, with the name of the process."""
    logs = sorted(folder.glob("*.log"))
    return [f"{path.stem}: {words}" for path in logs for words in complaints(path.read_text(errors="replace"))]


def _explained(raised: str) -> bool:
    parsed = _RAISED.match(raised)
    assert parsed is not None
    words = parsed["words"] or ""
    return any(
        re.fullmatch(kind, parsed["kind"]) and re.search(why, words, re.IGNORECASE) for kind, why in _CONSEQUENCES
    )


def _exceptions(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The log line and the last exception of every chain. One cut off by a kill has no last line and is left out."""
    starts = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    for at, following in pairwise([*starts, len(lines)]):
        raised, end = _raised(lines, at + 1, following)
        if raised and not raised.startswith(_QUOTING) and not _goes_on(lines[end:following]):
            yield _logged_by(lines, at), raised


def _raised(lines: list[str], begin: int, end: int) -> tuple[str, int]:
    """The line below the frames that names the exception."""
    for number in range(begin, end):
        if not lines[number].startswith((" ", "\t", "|")) and lines[number].strip():
            return (lines[number] if _RAISED.match(lines[number]) else ""), number
    return "", end


def _goes_on(lines: list[str]) -> bool:
    return any(line.startswith(_LINKS) for line in lines)


def _logged_by(lines: list[str], at: int) -> str:
    """The log line that the chain belongs to: the nearest above its first traceback that carries a level."""
    for number in range(at - 1, max(at - 2000, -1), -1):
        if re.search(r"\b(ERROR|CRITICAL|WARNING)\b", lines[number]):
            return lines[number][:160]
    return "unannounced"
