"""The write throttle on SQLite: two file locks, since SQLite has one write lock and no queue before it.

A writer takes the gate, waits there for the slot, and opens the gate once it holds the slot. So only one process waits
for the slot at a time, and a process that has just written finds the gate shut: it cannot simply write again. The
kernel drops both locks when a process dies. The throttle protects no data: SQLite's own lock does that.
"""

from __future__ import annotations

import fcntl
import os
import random
import time

GATE_S = (0.0005, 0.003)  # between tries of the gate: random, or two processes might keep in step
SLOT_S = (0.0002, 0.0005)  # between tries of the one that is next


def acquire(database: str, patience_s: float) -> int | None:
    """Wait for the slot. Returns what `release` takes, or None if it took longer than `patience_s` seconds or no lock
    can be had: then the caller goes on without."""
    deadline = time.monotonic() + patience_s
    try:
        gate = _locked(f"{database}-gate", GATE_S, deadline)
        if gate is None:
            return None
        try:
            return _locked(f"{database}-turn", SLOT_S, deadline)
        finally:
            os.close(gate)
    except OSError:
        return None


def release(slot: int | None) -> None:
    """Let the next process write."""
    if slot is not None:
        os.close(slot)


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
