"""`manage.py fill`: realistic finished runs through the real write path; prints them as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from experiments.models import Project
from experiments.operations.demo_runs import fill


class Command(BaseCommand):
    help = "Fill the database with realistic finished runs, each series with one known spike."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--runs", type=int, required=True)
        parser.add_argument("--steps", type=int, required=True)
        parser.add_argument("--series", type=int, required=True)
        parser.add_argument("--project", default="default")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("runs", "steps", "series"):
            if options[name] < 1:
                raise CommandError(f"--{name} must be at least 1")
        project, _ = Project.objects.get_or_create(name=options["project"])
        began = time.perf_counter()
        made = fill(
            project, runs=options["runs"], steps=options["steps"], series=options["series"], seed=options["seed"]
        )
        told = {**asdict(made), "seconds": round(time.perf_counter() - began, 3)}
        self.stdout.write(json.dumps(told))
