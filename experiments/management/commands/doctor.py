"""`manage.py doctor`: look the deployment over; exit code 1 where something is bad."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from experiments.operations.doctor import examine


class Command(BaseCommand):
    help = "Check database, migrations, clock, broker, storage, disk, reconciler, workers, queue and settings."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        bad = 0
        for found in examine():
            bad += found.level == "bad"
            self.stdout.write(f"{found.level:8}{found.subject:12}{found.words}")
        if bad:
            self.stdout.write(f"{bad} thing{'s are' if bad > 1 else ' is'} bad")
            sys.exit(1)
