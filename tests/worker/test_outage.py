"""The database goes away in the middle of a run: training goes on, and what was said meanwhile is stored later."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.postgres import Postgres
from tests.redis_server import RedisServer
from tests.worker import fleet

NAME = "outage"
SUBMIT = "import django; django.setup(); from tests.worker.looking import queue; print(queue(40, pool='outage').pk)"
CHECK = """
import sys, django; django.setup()
from experiments.models import Run
from tests.worker.looking import assert_whole
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
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(fleet.REPOSITORY)}
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, env=environment, cwd=fleet.REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def elsewhere(postgres_server: Postgres) -> Iterator[Elsewhere]:
    database = Elsewhere(postgres_server)
    database.ask(f"CREATE DATABASE {NAME}", "postgres")
    database.python("-m", "django", "migrate", "-v0")
    yield database
    database.ask(f"DROP DATABASE {NAME} WITH (FORCE)", "postgres")


@pytest.mark.postgres
@pytest.mark.slow
def test_a_run_outlives_its_database_being_killed(elsewhere: Elsewhere, redis: RedisServer) -> None:
    worker = fleet.Worker("outage", script={"hold_at": 15}, **elsewhere.environment).ready()
    try:
        run = int(elsewhere.python("-c", SUBMIT))
        progress = f"SELECT committed_step, state, fence FROM experiments_run WHERE id = {run}"
        fleet.wait_for(lambda: elsewhere.ask(progress)[0] == 15)
        elsewhere.server.kill()
        worker.play({})
        fleet.wait_for(lambda: "does not answer" in worker.log())
        elsewhere.server.start()
        fleet.wait_for(lambda: elsewhere.ask(progress)[1] == "succeeded", 30)
        assert elsewhere.ask(progress) == (40, "succeeded", 1)
        elsewhere.python("-c", CHECK, str(run))
    finally:
        worker.stop()
