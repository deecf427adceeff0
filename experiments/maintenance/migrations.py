"""How many migrations the database has and lacks: for readiness, metrics, the doctor and the launcher."""

from __future__ import annotations

from typing import NamedTuple

from django.db import connection
from django.db.migrations.executor import MigrationExecutor


class Migrations(NamedTuple):
    applied: int
    unapplied: int


def migrations() -> Migrations:
    """Costs about 0.1 s: Django reads every migration."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return Migrations(len(executor.loader.applied_migrations), len(plan))
