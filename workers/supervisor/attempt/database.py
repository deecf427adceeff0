"""Database calls that wait while the database is away; training goes on meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class Away(Exception):
    """The database did not answer, and ATTN_DB_OUTAGE_S has not passed yet."""


class DatabaseGone(Exception):
    """The database has been away for longer than ATTN_DB_OUTAGE_S: the attempt is abandoned, its lease expires."""


class Database:
    """The database calls of one attempt. `urgent` is called between tries and must not need the database; it may
    raise to give up."""

    def __init__(self, urgent: Callable[[], None]) -> None:
        self._urgent = urgent
        self._away_since: float | None = None

    @property
    def answers(self) -> bool:
        """Whether the last call was answered."""
        return self._away_since is None

    def once(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """One try. Raises Away, or DatabaseGone after ATTN_DB_OUTAGE_S."""
        try:
            result = call(*args, **named)
        except (OperationalError, InterfaceError) as error:
            connection.close()
            self._missed(error)
            raise Away from error
        if self._away_since is not None:
            log.warning("the database is back after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None
        return result

    def persist(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Try until it is written. An ambiguous commit is made again: lifecycle's writes are idempotent."""
        wait = 0.1
        while True:
            try:
                return self.once(call, *args, **named)
            except Away:
                self._urgent()
                time.sleep(wait)
                wait = min(wait * 2, 2.0)

    def _missed(self, error: Exception) -> None:
        now = time.monotonic()
        if self._away_since is None:
            log.warning("the database does not answer: %s", error)
            self._away_since = now
        elif now - self._away_since > settings.ATTN_DB_OUTAGE_S:
            raise DatabaseGone(f"the database has been away for {now - self._away_since:.0f} s") from error
