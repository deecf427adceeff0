"""What every test can ask for: a real database, a real Redis, and a clear word where one is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from attnservice.local.broker import NoServer
from tests import environment
from tests.environment import ON_POSTGRES, OWN, ROOT, SOCKET, skip_for_want_of
from tests.postgres import Missing, Postgres
from tests.redis_server import RedisServer

# How long an example takes says more about the machine than about the code.
hypothesis_settings.register_profile("attnservice", deadline=None)
hypothesis_settings.load_profile("attnservice")
SERVICE, WORKER = (Path(__file__).parent / name for name in ("service", "worker"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Everything under tests/service touches the database. The PostgreSQL pass runs just what does.

    A wrapper, since markers have to stand before xdist reads its groups, and the order after pytest-django has
    sorted by database: what takes longest starts first, or one process would be left alone with it at the end."""
    for item in items:
        if SERVICE in item.path.parents:
            item.add_marker(pytest.mark.db)
    yield
    if ON_POSTGRES:
        kept = [item for item in items if item.get_closest_marker("db")]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """The workers that tests/worker shares look for work in the test database until the end: they come last."""
    if WORKER in item.path.parents:
        return 2
    return 0 if item.get_closest_marker("xdist_group") or item.get_closest_marker("slow") else 1


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """The test database is the one that DATABASE_URL names (settings.py), so child processes find it."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    database.setdefault("TEST", {})["NAME"] = database["NAME"]


@pytest.fixture(scope="session", autouse=True)
def patient_flush() -> Iterator[None]:
    """Emptying all tables after a test may meet a transaction of a worker or reconciler that several tests share;
    PostgreSQL then ends one of the two. It is tried again."""
    from django.db import OperationalError
    from django.db.backends.base.operations import BaseDatabaseOperations

    once = BaseDatabaseOperations.execute_sql_flush

    def again(self: BaseDatabaseOperations, sql_list: list[str]) -> None:
        for _ in range(9):
            try:
                return once(self, sql_list)
            except OperationalError as error:
                if "deadlock" not in str(error) and "locked" not in str(error):
                    raise
        return once(self, sql_list)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseOperations, "execute_sql_flush", again)
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis of this test process: REDIS_URL in the environment and in the settings names it. A test that
    kills or freezes it brings it back before it ends."""
    try:
        server = RedisServer(OWN / "redis", SOCKET).start()
    except NoServer as error:
        skip_for_want_of("redis", str(error))
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    """The same server, emptied."""
    import redis as client

    with client.Redis.from_url(redis_server.url) as connection:
        connection.flushall()
    return redis_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL of its own, whatever database the other tests run on. Durable: it may be killed."""
    try:
        server = Postgres(ROOT / f"pg-{OWN.name}", durable=True).start()
    except Missing as missing:
        skip_for_want_of("postgres", str(missing))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Debian's chromium; a browser that Playwright downloads would do as well, but is not what CI has."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    skip_for_want_of("browser", "chromium is not installed (apt-get install chromium)")
    raise AssertionError


def pytest_report_header() -> str:
    where = "PostgreSQL" if environment.ON_POSTGRES else "SQLite"
    return f"database: {where}; test files in {ROOT}"
