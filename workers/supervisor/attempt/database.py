"""Patience with a database that is away: training goes on, and what is to be written waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

log = logging.getLogger(__name__)
T = TypeVar("T")


class Away(Exception):
    """The database did not answer; it has not been away for long."""


class DatabaseGone(Exception):
    """The database has been away for longer than ATTN_DB_OUTAGE_S: the attempt is given up, its lease expires."""


class Database:
    """Calls of one attempt, which remember since when the database has not answered.

    `urgent` is called between tries: it must not need the database. It may raise to give up.
    """

    def __init__(self, urgent: Callable[[], None]) -> None:
        self._urgent = urgent
        self._away_since: float | None = None

    @property
    def answers(self) -> bool:
        """Whether the last call was answered."""
        return self._away_since is None

    def once(self, call: Callable[[], T]) -> T:
        """One try. Raises Away, or DatabaseGone when the patience is at its end."""
        try:
            result = call()
        except (OperationalError, InterfaceError) as error:
            connection.close()
            self._missed(error)
            raise Away from error
        if self._away_since is not None:
            log.warning("the database is back after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None
        return result

    def persist(self, call: Callable[[], T]) -> T:
        """Try until it is written. An ambiguous commit is made again: lifecycle's writes settle it."""
        wait = 0.1
        while True:
            try:
                return self.once(call)
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
