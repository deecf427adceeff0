"""Trainers that outlived their supervisor. The parent-death signal should leave none; this makes sure."""

from __future__ import annotations

import contextlib
import logging
import os
import signal

import psutil

from experiments.lifecycle import Held
from experiments.models import Attempt
from workers.supervisor import limits
from workers.supervisor.machine import machine

log = logging.getLogger(__name__)
BIRTH = "pid_created"  # key in an attempt's info: distinguishes a trainer from a later process with its id
_CLOCK_SLACK_S = 2.0


def birth(pid: int) -> float | None:
    """When a process was started, according to psutil."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def kill_orphans(held: Held) -> None:
    """Kill trainers of earlier attempts of this run on this host."""
    earlier = Attempt.objects.filter(run_id=held.run_id, fence__lt=held.fence, host=machine.host(), pid__isnull=False)
    for pid, info in earlier.order_by("-fence").values_list("pid", "info")[:10]:
        if pid and _is_that_trainer(pid, info.get(BIRTH)):
            log.warning("run %s: killing trainer %s, an orphan of an earlier attempt", held.run_id, pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def _is_that_trainer(pid: int, born: object) -> bool:
    try:
        process = psutil.Process(pid)
        same = isinstance(born, float) and abs(process.create_time() - born) < _CLOCK_SLACK_S
        return same and limits.TRAINER in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
