"""Chooses the database and the broker of a test process. Loaded by `-p tests.environment` before Django reads its
settings, because real child processes (workers, web servers) have to find the same ones in the environment.

ATTN_TEST_DB=postgres runs the tests marked `db` on a PostgreSQL server that this plugin starts, and skips the others.
ATTN_REQUIRE=postgres,redis,browser turns a skip for want of one of these into a failure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from attnservice.local import broker
from tests.postgres import Missing, Postgres

# Idle threads of torch must not spin while another test needs the core; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ON_POSTGRES = os.environ.get("ATTN_TEST_DB", "sqlite") == "postgres"
_first = "ATTN_TEST_ROOT" not in os.environ  # the process that cleans up; xdist's workers inherit the rest


def _root() -> Path:
    if _first:
        os.environ["ATTN_TEST_ROOT"] = tempfile.mkdtemp(prefix="attn-test-")
    root = Path(os.environ["ATTN_TEST_ROOT"])
    root.chmod(0o711)  # PostgreSQL runs as another user in a folder below
    return root


def _own() -> Path:
    """This process's folder; short, for the sockets in it."""
    own = ROOT / os.environ.get("PYTEST_XDIST_WORKER", "main")
    own.mkdir(mode=0o700, exist_ok=True)
    (own / "data" / "static").mkdir(parents=True, exist_ok=True)  # WhiteNoise warns where there is none
    return own


ROOT = _root()
OWN = _own()
SOCKET = broker.socket_path(OWN)
_server: Postgres | None = None
_no_postgres = ""  # why


def _database_url() -> str:
    """SQLite in a file, so that child processes see it; on PostgreSQL one database a process."""
    if not ON_POSTGRES or _no_postgres:
        os.environ["ATTN_TEST_SQLITE"] = str(OWN / "test.sqlite3")
        return f"sqlite:///{OWN / 'test.sqlite3'}"
    return os.environ["ATTN_TEST_POSTGRES"].replace("DATABASE", f"attn_{OWN.name}")


def _start_postgres() -> None:
    global _server, _no_postgres
    try:
        _server = Postgres(ROOT / "pg").start()
    except Missing as missing:
        _no_postgres = str(missing)
    else:
        os.environ["ATTN_TEST_POSTGRES"] = _server.url("DATABASE")


def required(what: str) -> bool:
    """Is a test that lacks `what` a failure here, and not a skip?"""
    return what in os.environ.get("ATTN_REQUIRE", "").split(",")


if ON_POSTGRES and _first:
    _start_postgres()
os.environ.update(
    ATTN_DATA=str(OWN / "data"),
    ATTN_INSECURE_KEY="1",
    DATABASE_URL=_database_url(),
    REDIS_URL=broker.url(SOCKET),
    # Playwright's synchronous interface runs an event loop in the thread that also asks the database.
    DJANGO_ALLOW_ASYNC_UNSAFE="1",
)


def skip_for_want_of(what: str, reason: str) -> None:
    if required(what):
        pytest.fail(f"ATTN_REQUIRE names {what}, but {reason}", pytrace=False)
    pytest.skip(f"no {what}: {reason}")


def pytest_configure() -> None:
    """The pass is nothing without its server: end it here, loudly, and not test by test."""
    if _no_postgres:
        pytest.exit(f"SKIPPED: the PostgreSQL pass. {_no_postgres}", returncode=int(required("postgres")))


def pytest_unconfigure() -> None:
    if _server:
        _server.stop()
    if _first:
        shutil.rmtree(ROOT, ignore_errors=True)
