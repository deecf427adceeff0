"""The main process says every ATTN_BEAT_S that the worker lives, and hears whether it is to drain."""

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

# The main process forks a new slot whenever one dies. A fork in the middle of a database call would hand
# the slot a library whose locks nobody will ever release, so a fork waits until the call is over.
_calls = threading.Lock()
os.register_at_fork(before=_calls.acquire, after_in_parent=_calls.release, after_in_child=_calls.release)


class Heartbeat:
    """A thread with a connection of its own, opened and closed within each beat."""

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
    """Write the worker's row anew: pid, pools and device are those of this process."""
    _call_database(identity.register)


def beat(identity: Identity) -> None:
    """One beat; a database that is away is tried again at the next."""
    _call_database(lambda: drain.set_drained(identity.beat(backlog.total()).draining))


def retire(identity: Identity) -> None:
    """Say goodbye, so that nobody counts on the worker's slots for another lease."""
    _call_database(identity.retire)


def _call_database(call: Callable[[], object]) -> None:
    with _calls:
        try:
            call()
        except Error as error:
            log.warning("no heartbeat: %s", error)
        finally:
            connection.close()
