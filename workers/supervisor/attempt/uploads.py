"""Transfers to and from the artifact storage, in a thread, while the supervisor keeps the lease."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import ParamSpec, TypeVar

from django.conf import settings

from workers.files import Damaged
from workers.supervisor import limits
from workers.supervisor.attempt.lease_keeper import LeaseKeeper

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
REFUSES, ANSWERS = "storage refuses", "storage answers"  # kinds of events


class StorageFailed(Exception):
    """A file could not be written to the storage or read from it."""


class Uploads:
    """One transfer at a time. The lease is renewed meanwhile. A failed transfer is tried again for ATTN_DB_OUTAGE_S
    seconds, or until the grace of a stop is over. Calls must not use the database."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload")

    def run(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """The call's result. Raises StorageFailed where it keeps failing, and Damaged as the call does."""
        pause, until = 0.5, time.monotonic() + settings.ATTN_DB_OUTAGE_S
        while True:
            try:
                result = self._once(partial(call, *args, **named))
            except (Damaged, StorageFailed):
                raise
            except FileNotFoundError as error:
                raise StorageFailed(str(error)) from error
            except Exception as error:  # OSError of a disk, or whatever an object store's client raises
                if time.monotonic() > until or self._keeper.out_of_time:
                    raise StorageFailed(f"the storage refuses: {error!r}") from error
                log.warning("the storage refuses (%r); trying again", error)
                words = f"the storage refuses: {error}; trying again for {settings.ATTN_DB_OUTAGE_S} s"
                self._keeper.warn(REFUSES, words, over=ANSWERS)
            else:
                self._keeper.resolve(REFUSES, ANSWERS, "the storage works again")
                return result
            self._pause(pause)
            pause = min(pause * 2, 10.0)

    def _once(self, call: Callable[[], T]) -> T:
        future = self._thread.submit(call)
        while not wait([future], limits.TICK_S).done:
            self._keeper.tick()
            if self._keeper.out_of_time:
                raise StorageFailed("the transfer did not end within the stop's grace period")
        return future.result()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._keeper.tick()
            time.sleep(limits.TICK_S)

    def close(self) -> None:
        """Abandon the transfer in progress."""
        self._thread.shutdown(wait=False, cancel_futures=True)
