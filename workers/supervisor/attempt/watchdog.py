"""What ends a run that goes on too long, grows too large, or lives without making a step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from experiments.states import Reason
from workers.supervisor import limits
from workers.supervisor.process.trainer_process import Trainer

STACKS = "stacks.txt"  # in scratch: where a trainer writes its stacks on SIGUSR1
_CHECK_S = 1.0
_DUMP_S = 2.0


@dataclass(frozen=True)
class Breach:
    """Why the trainer has to go, for programs and in words."""

    reason: Reason
    text: str


class Watchdog:
    """Looks about once a second. `spent` are seconds that earlier attempts used of the run's time."""

    def __init__(self, spec: Mapping[str, Any], spent: float, trainer: Trainer) -> None:
        resources = spec.get("resources", {})
        self._minutes, self._megabytes = resources.get("max_minutes"), resources.get("max_memory_mb")
        self._trainer, self._spent = trainer, spent
        self._began = self._next = time.monotonic()

    def check(self) -> Breach | None:
        """What is wrong now, if it is time to look and something is."""
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + _CHECK_S
        return self._too_long(now) or self._too_large() or self._stuck(now)

    def _too_long(self, now: float) -> Breach | None:
        if self._minutes is None or self._spent + now - self._began <= 60 * self._minutes:
            return None
        return Breach(Reason.LIMIT, f"it has run for longer than resources.max_minutes = {self._minutes:g} allows")

    def _too_large(self) -> Breach | None:
        if self._megabytes is None:
            return None
        used = resident(self._trainer.pid) / 2**20
        if used <= self._megabytes:
            return None
        words = f"its processes hold {used:,.0f} MB; resources.max_memory_mb = {self._megabytes} allows no more"
        return Breach(Reason.LIMIT, words)

    def _stuck(self, now: float) -> Breach | None:
        inbox = self._trainer.inbox
        silent = now - max(inbox.stepped, self._began)
        if silent <= limits.STUCK_S or inbox.waits or inbox.backlog:
            return None
        return Breach(Reason.STUCK, f"it made no step for {silent:.0f} s")


def resident(pid: int) -> int:
    """Bytes of memory that a process and all its descendants hold."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_resident, family))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def dump_stacks(trainer: Trainer, scratch: Path) -> Path | None:
    """Ask a trainer for the stacks of all its threads; None where it does not answer in time."""
    path = scratch / STACKS
    if not path.exists():  # it has not registered: the signal would only kill it
        return None
    os.kill(trainer.pid, signal.SIGUSR1)
    deadline = time.monotonic() + _DUMP_S
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if path.stat().st_size:
            return path
    return None
