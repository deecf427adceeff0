"""Finds a run that takes too long, uses too much memory, or makes no step."""

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

STACKS = "stacks.txt"  # in scratch: a trainer writes its stacks there on SIGUSR1
_CHECK_S = 1.0
_DUMP_S = 2.0


@dataclass(frozen=True)
class Breach:
    """Why the trainer must be killed."""

    reason: Reason
    text: str


class Watchdog:
    """Checks about once a second. `spent`: seconds of the run's time that earlier attempts used."""

    def __init__(self, spec: Mapping[str, Any], spent: float, trainer: Trainer) -> None:
        resources = spec.get("resources", {})
        self._minutes, self._megabytes = resources.get("max_minutes"), resources.get("max_memory_mb")
        self._trainer, self._spent = trainer, spent
        self._began = self._next = time.monotonic()

    def check(self) -> Breach | None:
        """The breach, if a check is due and finds one."""
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
        text = f"its processes hold {used:,.0f} MB, more than resources.max_memory_mb = {self._megabytes} allows"
        return Breach(Reason.LIMIT, text)

    def _stuck(self, now: float) -> Breach | None:
        inbox = self._trainer.inbox
        silent = now - max(inbox.stepped, self._began)
        if silent <= limits.STUCK_S or inbox.waits or inbox.backlog:
            return None
        return Breach(Reason.STUCK, f"it made no step for {silent:.0f} s")


def resident(pid: int) -> int:
    """Bytes of memory of a process and all its descendants."""
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
    """Have a trainer write the stacks of all its threads; None where it does not in time."""
    path = scratch / STACKS
    if not path.exists():  # no handler yet: the signal would kill it
        return None
    os.kill(trainer.pid, signal.SIGUSR1)
    deadline = time.monotonic() + _DUMP_S
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if path.stat().st_size:
            return path
    return None
