"""`python -m tests.chaos.day`: 24 hours of 50 workers with random deaths in virtual time, on a real database. Exit
status 1 if an invariant was broken at any event."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    options = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="attn-day-"))
    try:
        figures = _with_database(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(figures)
    out = options.out or ROOT / f"benchmarks/results/chaos-day-{options.database}.json"
    out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return 1 if figures["violations"] else 0


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.day", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--load", type=float, default=0.6, help="share of all slots the work fills if nothing dies")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser.parse_args()


def _with_database(options: Any, folder: Path) -> dict[str, Any]:
    """An empty installation in the folder, then the day."""
    from tests.postgres import Postgres

    folder.chmod(0o711)  # PostgreSQL runs as another user below
    server = Postgres(folder / "pg").start() if options.database == "postgres" else None
    try:
        url = server.url() if server else f"sqlite:///{folder / 'day.sqlite3'}"
        os.environ.update(
            ATTN_DATA=str(folder),
            ATTN_INSECURE_KEY="1",
            DATABASE_URL=url,
            DJANGO_SETTINGS_MODULE="attnservice.settings",
        )
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        logging.disable(logging.ERROR)  # thousands of expired leases
        return simulate(options)
    finally:
        if server:
            server.stop()


def simulate(options: Any) -> dict[str, Any]:
    """The day, and its figures. Django must be set up."""
    from tests.chaos.virtual import virtual_clock
    from tests.chaos.workday import Day, DayPlan

    began = time.monotonic()
    with virtual_clock() as clock:
        day = Day(DayPlan(seed=options.seed, hours=options.hours, workers=options.workers, load=options.load), clock)
        day.live()
        figures = day.figures()
    return {
        "database": "PostgreSQL" if options.database == "postgres" else "SQLite",
        **figures,
        "seconds": round(time.monotonic() - began, 1),
        "violations": day.monitor.violations,
    }


def _print(figures: dict[str, Any]) -> None:
    for name, figure in figures.items():
        if name != "violations":
            print(f"  {name:36} {figure}")
    for words in figures["violations"][:50]:
        print(f"  VIOLATION {words}", file=sys.stderr)
    print(f"  {'violations':36} {len(figures['violations'])}")


if __name__ == "__main__":
    sys.exit(main())
