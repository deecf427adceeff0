"""`manage.py doctor`: check the deployment; exit status 1 if something is bad."""

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
        for finding in examine():
            bad += finding.level == "bad"
            self.stdout.write(f"{finding.level:8}{finding.subject:12}{finding.words}")
        if bad:
            self.stdout.write(f"{bad} {'checks' if bad > 1 else 'check'} failed")
            sys.exit(1)
