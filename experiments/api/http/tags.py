"""Filtering by tag: SQLite and PostgreSQL have no common lookup for JSON lists."""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, F, Func, Value
from django.db.models.sql.compiler import SQLCompiler


class HasTag(Func):
    """True where the JSON list of strings contains exactly this one."""

    function = "jsonb_exists"
    output_field = BooleanField()

    def __init__(self, field: str, tag: str) -> None:
        super().__init__(F(field), Value(tag))

    def as_sqlite(self, compiler: SQLCompiler, connection: Any, **extra: Any) -> Any:
        (tags, tag_params), (tag, value_params) = (compiler.compile(part) for part in self.source_expressions)
        sql = f"EXISTS (SELECT 1 FROM json_each({tags}) AS each_tag WHERE each_tag.value = {tag})"
        return sql, (*tag_params, *value_params)
