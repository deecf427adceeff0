"""The database goes away in the middle of a run: training goes on, and what was said meanwhile is stored later."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres import Postgres
from tests.redis_server import RedisServer
from tests.worker import processes

NAME = "outage"
SUBMIT = """
import sys, django; django.setup()
from tests.worker.runs import queue
print(*[queue(int(sys.argv[2]), pool='outage').pk for _ in range(int(sys.argv[1]))])
"""
CHECK = """
import sys, django; django.setup()
from experiments.models import Run
from tests.worker.runs import assert_whole
assert_whole(Run.objects.get(pk=int(sys.argv[1])))
"""


class Elsewhere:
    """A second database, which this process's Django does not know."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.environment = {"DATABASE_URL": server.url(NAME), "DJANGO_SETTINGS_MODULE": "attnservice.settings"}

    def ask(self, sql: str, database: str = NAME) -> Any:
        with psycopg.connect(host=str(self.server.folder), user="attn", dbname=database, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchone() if cursor.description else None

    def python(self, *arguments: str) -> str:
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(processes.REPOSITORY)}
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, env=environment, cwd=processes.REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, runs: int, steps: int) -> list[int]:
        return [int(run) for run in self.python("-c", SUBMIT, str(runs), str(steps)).split()]

    def progress(self, run: int) -> tuple[int, str, int]:
        """Committed steps, state, fence."""
        columns = "committed_step, state, fence"
        found: tuple[int, str, int] = self.ask(f"SELECT {columns} FROM experiments_run WHERE id = {run}")
        return found


@pytest.fixture
def elsewhere(postgres_server: Postgres) -> Iterator[Elsewhere]:
    database = Elsewhere(postgres_server)
    database.ask(f"CREATE DATABASE {NAME}", "postgres")
    database.python("-m", "django", "migrate", "-v0")
    yield database
    database.ask(f"DROP DATABASE {NAME} WITH (FORCE)", "postgres")


def outlive(database: Elsewhere, *, runs: int, steps: int, away: float, pace: float = 0.005) -> None:
    """The database is killed while runs train and comes back after `away` seconds: no step is lost, nothing starts
    anew, what had no room in memory waited on disk, and nothing of it is left."""
    quick = {"pace": pace}
    settings = {**database.environment, "ATTN_INBOX_BYTES": "4096"}
    worker = processes.Worker("outage", slots=runs, script={"hold_at": 15, **quick}, **settings).ready()
    reconciler = processes.start_reconciler(**database.environment)
    try:
        ids = database.submit(runs, steps)
        processes.wait_for(lambda: all(database.progress(run)[0] == 15 for run in ids))
        database.server.kill()
        worker.play(quick)
        try:
            processes.wait_for(lambda: worker.log().count("spooling to disk") == runs, what=f"{runs} runs spool")
            time.sleep(away)
        finally:
            database.server.start()
        processes.wait_for(lambda: all(database.progress(run)[1] == "succeeded" for run in ids), 60 + 2 * away)
        assert [database.progress(run) for run in ids] == [(steps, "succeeded", 1)] * runs
        for run in ids:
            database.python("-c", CHECK, str(run))
        left = [path.name for path in Path(os.environ["ATTN_DATA"], "scratch").iterdir()]
        assert not [name for name in left if name.split("-")[0] in map(str, ids)]
    finally:
        worker.stop()
        reconciler.stop()


@pytest.mark.postgres
@pytest.mark.slow
def test_a_run_outlives_its_database_being_killed_and_spools_to_disk_meanwhile(
    elsewhere: Elsewhere, redis: RedisServer
) -> None:
    outlive(elsewhere, runs=1, steps=200, away=0.5)


@pytest.mark.chaos
@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_four_runs_outlive_three_minutes_without_a_database(elsewhere: Elsewhere, redis: RedisServer) -> None:
    outlive(elsewhere, runs=4, steps=4000, away=180, pace=0.05)
