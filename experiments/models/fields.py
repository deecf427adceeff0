"""A column of JSON that keeps the order of its keys."""

from __future__ import annotations

import json
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class OrderedJSON(models.JSONField):
    """JSON as written: on PostgreSQL `json`, which keeps the order of keys, instead of `jsonb`, which does not.

    For a matrix, whose first field is what a report compares, and for specs, which people read back. It cannot be
    searched.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        return "json" if connection.vendor == "postgresql" else super().db_type(connection)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        if connection.vendor != "postgresql" or value is None or hasattr(value, "as_sql"):
            return super().get_db_prep_value(value, connection, prepared)
        from psycopg.types.json import Json

        return value if isinstance(value, Json) else Json(value)

    def from_db_value(self, value: Any, *_: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value
