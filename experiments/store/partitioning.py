"""Partition the store's large tables by hash of their group of series, on PostgreSQL.

A group belongs to one run and every query of the store names groups, so a query reads one partition of each table.
Constraints and indexes keep the names that Django gave them, so that later migrations find them.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from experiments.models import Block, Frame, StepIndex

MODELS: tuple[type[Model], ...] = (Block, Frame, StepIndex)
KEY = "group_id"


class NotPossible(RuntimeError):
    """The database cannot partition tables, or they are partitioned already."""


def partition(parts: int) -> dict[str, int]:
    """Rebuild each table in so many partitions, in one transaction that locks writers out. Returns rows by table.

    Needs as much free disk as the tables take. Raises NotPossible.
    """
    if connection.vendor != "postgresql":
        raise NotPossible("only PostgreSQL partitions tables; this database is " + connection.vendor)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        return {model._meta.db_table: _rebuild(cursor, model, parts) for model in MODELS}


def _rebuild(cursor: CursorWrapper, model: type[Model], parts: int) -> int:
    table = model._meta.db_table
    cursor.execute("SELECT relkind FROM pg_class WHERE oid = %s::regclass", [table])
    if cursor.fetchone()[0] == "p":
        raise NotPossible(f"{table} is partitioned already")
    old = f"{table}_whole"
    cursor.execute(f'LOCK TABLE "{table}" IN ACCESS EXCLUSIVE MODE')
    constraints, indexes = _constraints(cursor, table), _indexes(cursor, table)
    cursor.execute(f'ALTER TABLE "{table}" RENAME TO "{old}"')
    cursor.execute(f'CREATE TABLE "{table}" (LIKE "{old}" INCLUDING STORAGE) PARTITION BY HASH ({KEY})')
    for part in range(parts):
        bounds = f"WITH (MODULUS {parts}, REMAINDER {part})"
        cursor.execute(f'CREATE TABLE "{table}_p{part}" PARTITION OF "{table}" FOR VALUES {bounds}')
    _keep_blobs_as_they_are(cursor, model)
    columns = ", ".join(f'"{field.column}"' for field in model._meta.concrete_fields)
    cursor.execute(f'INSERT INTO "{table}" ({columns}) SELECT {columns} FROM "{old}"')
    rows: int = cursor.rowcount
    cursor.execute(f'DROP TABLE "{old}"')
    _number(cursor, table)
    for name, definition in constraints:
        cursor.execute(f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" {definition}')
    for statement in indexes:
        cursor.execute(statement)
    return rows


def _constraints(cursor: CursorWrapper, table: str) -> list[tuple[str, str]]:
    """Unique and foreign keys as they are; the primary key with the hashed column added."""
    cursor.execute(
        "SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = %s::regclass AND contype IN ('p', 'u', 'f')",
        [table],
    )
    return [(name, f"PRIMARY KEY (id, {KEY})" if kind == "p" else text) for name, kind, text in cursor.fetchall()]


def _indexes(cursor: CursorWrapper, table: str) -> list[str]:
    """Indexes that belong to no constraint."""
    cursor.execute(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass AND NOT EXISTS"
        " (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND conrelid = indrelid)",
        [table],
    )
    return [statement for (statement,) in cursor.fetchall()]


def _keep_blobs_as_they_are(cursor: CursorWrapper, model: type[Model]) -> None:
    """They are compressed already; see migration 0003."""
    for name in _blobs(model):
        cursor.execute(f'ALTER TABLE "{model._meta.db_table}" ALTER COLUMN "{name}" SET STORAGE EXTERNAL')


def _blobs(model: type[Model]) -> Iterable[str]:
    return (str(f.column) for f in model._meta.concrete_fields if f.get_internal_type() == "BinaryField")


def _number(cursor: CursorWrapper, table: str) -> None:
    """Ids from a sequence: before version 17 a partitioned table cannot have an identity column."""
    sequence = f"{table}_id_seq"
    cursor.execute(f'CREATE SEQUENCE "{sequence}" OWNED BY "{table}".id')
    cursor.execute(f'SELECT setval(%s, COALESCE((SELECT MAX(id) FROM "{table}"), 0) + 1, false)', [sequence])
    cursor.execute(f"ALTER TABLE \"{table}\" ALTER COLUMN id SET DEFAULT nextval('{sequence}')")
