"""The ground the other tests stand on: a real database in a file or on a server, and a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis as client
from django.db import connection

from tests.environment import ON_POSTGRES
from tests.postgres import Postgres
from tests.redis_server import RedisServer

COUNT_TABLES = """
import django; django.setup()
from django.db import connection
print(len(connection.introspection.table_names()))
"""


@pytest.mark.db
@pytest.mark.django_db(transaction=True)
def test_a_child_process_sees_the_test_database() -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "attnservice.settings"}
    told = subprocess.run([sys.executable, "-c", COUNT_TABLES], env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) == len(connection.introspection.table_names()) > 5


@pytest.mark.db
@pytest.mark.django_db
def test_the_database_is_the_one_that_this_pass_is_for() -> None:
    assert connection.vendor == ("postgresql" if ON_POSTGRES else "sqlite")


@pytest.mark.redis
@pytest.mark.parametrize("path", [os.environ["PATH"], "/nowhere"], ids=["from PATH", "from the wheel"])
def test_a_killed_redis_comes_back_with_what_it_held(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path)
    server = RedisServer(tmp_path).start()
    with client.Redis.from_url(server.url) as connection:
        connection.rpush("cpu", "a doorbell")
    server.signal(signal.SIGKILL)
    server.start()
    with client.Redis.from_url(server.url) as connection:
        assert connection.lrange("cpu", 0, -1) == [b"a doorbell"]
    server.stop()


@pytest.mark.postgres
def test_a_killed_postgres_comes_back_with_what_it_held(postgres_server: Postgres) -> None:
    import psycopg

    with psycopg.connect(postgres_server.url(), autocommit=True) as line:
        line.execute("create table kept (n int)")
        line.execute("insert into kept values (7)")
    postgres_server.kill()
    postgres_server.start()
    with psycopg.connect(postgres_server.url()) as line:
        assert line.execute("select n from kept").fetchall() == [(7,)]
