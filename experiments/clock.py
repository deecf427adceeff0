"""Database time: the only clock by which leases are measured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now


def db_now() -> datetime:
    """The database's time, aware, in UTC."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')")
            return datetime.fromisoformat(cursor.fetchone()[0]).replace(tzinfo=UTC)
        cursor.execute("SELECT STATEMENT_TIMESTAMP()")
        now: datetime = cursor.fetchone()[0]
        return now


def db_in(seconds: float) -> CombinedExpression:
    """An expression: the database's time plus some seconds."""
    return Now() + timedelta(seconds=seconds)
