"""A fresh database in a temporary folder, as durable as an installation's: nothing is faster here for being a test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = ("sqlite", "postgres")
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def database(kind: str, keep: str | None = None) -> Iterator[Path]:
    """Set Django up on an empty, migrated database: SQLite with synchronous=FULL, PostgreSQL with fsync on.

    Once a process: Django's settings stay. Yields the folder of its files."""
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as own:
        folder = Path(keep or own)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)  # PostgreSQL runs as another user in a folder below
        if kind == "sqlite":
            _configure(f"sqlite:///{folder / 'bench.sqlite3'}", folder)
            yield folder
            return
        from tests.postgres import Postgres

        server = Postgres(folder / "pg", durable=True).start()
        try:
            _configure(server.url(), folder)
            yield folder
        finally:
            server.stop()


def _configure(url: str, folder: Path) -> None:
    os.environ.update(
        ATTN_DATA=str(folder),
        ATTN_INSECURE_KEY="1",
        ATTN_SQLITE_SYNCHRONOUS="FULL",
        DATABASE_URL=url,
        DJANGO_SETTINGS_MODULE="attnservice.settings",
        ATTN_LOG_LEVEL="ERROR",  # no doorbell is rung here: there is no Redis
        PYTHONPATH=str(ROOT),
    )
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def analyse() -> None:
    """What autovacuum does on PostgreSQL sooner or later; SQLite plans the same without."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def size_on_disk() -> int:
    """Bytes of the database's tables and indexes, after what can be given back has been."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            cursor.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        else:
            cursor.execute("VACUUM")
            cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])
