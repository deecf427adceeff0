"""`manage.py partition`: partition the store's large tables on PostgreSQL, in a maintenance window."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from experiments.store.partitioning import NotPossible, partition

MOST = 1024


class Command(BaseCommand):
    help = "Partition blocks, frames and step indexes by hash of their group (PostgreSQL). Writers wait meanwhile."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--parts", type=int, default=16, help="partitions of each table (default: 16)")

    def handle(self, *args: Any, **options: Any) -> None:
        parts = options["parts"]
        if not 2 <= parts <= MOST:
            raise CommandError(f"--parts must be from 2 to {MOST}")
        began = time.perf_counter()
        try:
            rows = partition(parts)
        except NotPossible as error:
            raise CommandError(str(error)) from None
        summary = ", ".join(f"{table}: {count:,} rows" for table, count in rows.items())
        self.stdout.write(f"{parts} partitions each; {summary}; {time.perf_counter() - began:.1f} s")
