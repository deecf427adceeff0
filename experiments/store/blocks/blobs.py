"""Fetching rows with blobs in binary. By default psycopg requests text, in which PostgreSQL writes each byte as two
characters: in binary a heat-map costs half (docs/decisions/0042)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import QuerySet


def fetch_rows(rows: QuerySet[Any, Any]) -> Iterable[tuple[Any, ...]]:
    """The rows of a `values_list` of integers and blobs, as they are stored."""
    connection = connections[rows.db]
    if connection.vendor != "postgresql":
        return rows
    try:
        sql, params = rows.query.sql_with_params()
    except EmptyResultSet:
        return []
    from psycopg import Cursor  # Django's own cursors bind on the client, which excludes binary

    connection.ensure_connection()
    with connection.wrap_database_errors, Cursor(connection.connection) as cursor:
        return list(cursor.execute(sql, params, binary=True).fetchall())
