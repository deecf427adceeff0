"""The end of a worker that was told to go, when something in it hangs: trainers die, leases run out, others go on."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

import psutil

log = logging.getLogger(__name__)


def enforce(seconds: float) -> None:
    """End this process and all its descendants in so many seconds, unless it has ended by then. Never blocks."""
    threading.Thread(target=_end, args=(time.monotonic() + seconds,), daemon=True, name="shutdown-deadline").start()


def _end(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))
    log.error("the grace of this worker is over: it is killed with its trainers; leases of its runs expire")
    for process in psutil.Process().children(recursive=True):  # listed first: an orphan is nobody's descendant
        with contextlib.suppress(psutil.Error):
            process.kill()
    os._exit(1)
