"""Virtual database time, by which leases, back-offs and waits are measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from django.db import connection

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
# Before pg_catalog in the search path, it is found first.
_POSTGRES = """
CREATE SCHEMA IF NOT EXISTS virtual;
CREATE OR REPLACE FUNCTION virtual.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql
AS $$ SELECT current_setting('virtual.now')::timestamptz $$;
SET search_path = virtual, pg_catalog, public;
"""


class VirtualClock:
    """Seconds since BEGIN."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    def advance(self, to: float) -> None:
        """Never back. On PostgreSQL one round trip."""
        assert to >= self.seconds
        self.seconds = to
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('virtual.now', %s, false)", [self.now().isoformat()])


@contextmanager
def virtual_clock() -> Iterator[VirtualClock]:
    """This connection's database and `timezone.now` (which fills `created`) return the clock's time."""
    clock = VirtualClock()
    connection.close()  # statements that SQLite has prepared keep its own function
    connection.ensure_connection()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('virtual.now', %s, false)", [BEGIN.isoformat()])
            cursor.execute(_POSTGRES)
    else:
        _override_strftime(connection.connection, clock)
    try:
        with patch("django.utils.timezone.now", clock.now):
            yield clock
    finally:
        connection.close()  # a new connection has the real time again


def _override_strftime(raw: Any, clock: VirtualClock) -> None:
    def strftime(form: str, moment: str) -> str:
        assert moment == "NOW", moment
        milliseconds = f"{clock.now():%S.%f}"[:-3]
        return clock.now().strftime(re.sub("%f", milliseconds, form))

    raw.create_function("STRFTIME", 2, strftime)
