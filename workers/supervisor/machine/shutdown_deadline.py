"""The deadline of a shutdown, for a worker that hangs: it is killed with its trainers, and other workers continue."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

import psutil

log = logging.getLogger(__name__)


def enforce(seconds: float) -> None:
    """Kill this process and its descendants after so many seconds, unless it has ended by then. Never blocks."""
    threading.Thread(target=_end, args=(time.monotonic() + seconds,), daemon=True, name="shutdown-deadline").start()


def _end(deadline: float) -> None:
    time.sleep(max(0.0, deadline - time.monotonic()))
    log.error("the shutdown deadline has passed: the worker is killed with its trainers, and its leases will expire")
    for process in psutil.Process().children(recursive=True):  # listed before any is killed: orphans are no descendants
        with contextlib.suppress(psutil.Error):
            process.kill()
    os._exit(1)
