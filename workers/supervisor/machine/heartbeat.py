"""The worker's heartbeat: every ATTN_BEAT_S the main process renews its row, and reads whether to drain."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from django.conf import settings
from django.db import Error, connection

from workers.supervisor.machine import backlog, drain
from workers.supervisor.machine.identity import WorkerIdentity, this_worker

log = logging.getLogger(__name__)

# The main process forks a new slot whenever one dies. A fork during a database call would copy locks that nothing
# releases, so a fork waits until the call is over.
_calls = threading.Lock()
os.register_at_fork(before=_calls.acquire, after_in_parent=_calls.release, after_in_child=_calls.release)


_stop = threading.Event()
_thread: threading.Thread | None = None


def start() -> None:
    """Beat in a thread, whose database connection is opened and closed within each beat."""
    global _thread
    _thread = threading.Thread(target=_run, name="heartbeat", daemon=True)
    _thread.start()


def stop() -> None:
    """Stop beating and mark the worker as gone, so that its slots no longer count."""
    if _thread is not None:
        _stop.set()
        _call_database(this_worker().retire)


def _run() -> None:
    while not _stop.wait(settings.ATTN_BEAT_S):
        beat(this_worker())


def register(identity: WorkerIdentity) -> None:
    """Write the worker's row: pid, pools and device of this process."""
    _call_database(identity.register)


def beat(identity: WorkerIdentity) -> None:
    """One beat. While the database is away, the next beat tries again."""
    _call_database(lambda: drain.set_drained(identity.beat(backlog.total()).draining))


def _call_database(call: Callable[[], object]) -> None:
    with _calls:
        try:
            call()
        except Error as error:
            log.warning("no heartbeat: %s", error)
        finally:
            connection.close()
