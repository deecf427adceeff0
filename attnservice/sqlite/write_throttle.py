"""Whose turn it is to write: a gate of two file locks, since SQLite has one write lock and no queue before it.

Who wants to write takes the gate, waits there for the turn, and opens the gate when it has it. So only one process
waits for the turn at a time, and who has just written finds the gate shut: it cannot simply write again. The kernel
drops both locks when a process dies. A turn is a courtesy and guards nothing: SQLite's own lock does that.
"""

from __future__ import annotations

import fcntl
import os
import random
import time

GATE_S = (0.0005, 0.003)  # between looks at the gate: drawn anew, or two processes might keep in step
TURN_S = (0.0002, 0.0005)  # between looks of the one that is next


def take(database: str, patience_s: float) -> int | None:
    """Wait for the turn. Returns what `give` takes; None where it took longer than `patience_s` seconds, or no lock
    can be had: then one goes on without."""
    deadline = time.monotonic() + patience_s
    try:
        gate = _locked(f"{database}-gate", GATE_S, deadline)
        if gate is None:
            return None
        try:
            return _locked(f"{database}-turn", TURN_S, deadline)
        finally:
            os.close(gate)
    except OSError:
        return None


def give(turn: int | None) -> None:
    """Let the next one write."""
    if turn is not None:
        os.close(turn)


def _locked(path: str, pause_s: tuple[float, float], deadline: float) -> int | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o660)
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(file)
                return None
            time.sleep(random.uniform(*pause_s))
        except OSError:
            os.close(file)
            raise
