"""Every ATTN_BEAT_S the main process writes that the worker is alive, and reads whether to drain."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from django.conf import settings
from django.db import Error, connection

from workers.supervisor.machine import backlog, drain
from workers.supervisor.machine.identity import Identity

log = logging.getLogger(__name__)

# The main process forks a new slot whenever one dies. A fork during a database call would copy locks that nothing
# releases, so a fork waits until the call is over.
_calls = threading.Lock()
os.register_at_fork(before=_calls.acquire, after_in_parent=_calls.release, after_in_child=_calls.release)


class Heartbeat:
    """A thread whose database connection is opened and closed within each beat."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(settings.ATTN_BEAT_S):
            beat(self._identity)


def register(identity: Identity) -> None:
    """Write the worker's row: pid, pools and device of this process."""
    _call_database(identity.register)


def beat(identity: Identity) -> None:
    """One beat. While the database is away, the next beat tries again."""
    _call_database(lambda: drain.set_drained(identity.beat(backlog.total()).draining))


def retire(identity: Identity) -> None:
    """Mark the worker as gone, so that its slots no longer count."""
    _call_database(identity.retire)


def _call_database(call: Callable[[], object]) -> None:
    with _calls:
        try:
            call()
        except Error as error:
            log.warning("no heartbeat: %s", error)
        finally:
            connection.close()
