"""Faults of database and disk: a problem with a reason over REST, a page in the browser, never a stack trace."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from django.db import OperationalError
from django.test import Client

from experiments import lifecycle
from experiments.models import Run

from .api_client import API, BODY, client_of, needs_database, problem
from .factories import make_project, make_user
from .html_form import sent_by

pytestmark = needs_database


def _full(file: Path) -> None:
    """A database of at most two pages."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("PRAGMA max_page_count = 2")
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")


def _locked(file: Path) -> None:
    with closing(sqlite3.connect(file)) as writer, closing(sqlite3.connect(file, timeout=0)) as other:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO t VALUES (1)")


def _absent(file: Path) -> None:
    sqlite3.connect(file / "no" / "folder.sqlite3")


def _read_only(file: Path) -> None:
    sqlite3.connect(file).close()
    file.write_bytes(b"")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        database.execute("CREATE TABLE t (x)")


def error_of(fault: Callable[[Path], None], folder: Path) -> Exception:
    """SQLite's own error, as Django hands it on."""
    try:
        fault(folder / "own.sqlite3")
    except sqlite3.OperationalError as cause:
        error = OperationalError(str(cause))
        error.__cause__ = cause
        return error
    raise AssertionError("the fault did not happen")


FAULTS = [(_full, "full"), (_locked, "locked"), (_absent, "cannot be opened"), (_read_only, "cannot be written to")]


def failing_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(*_args: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr(lifecycle, "submit", submit)


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_a_fault_of_the_database_is_a_problem_that_says_what_helps(
    fault: Callable[[Path], None], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project("lab")
    client = client_of(make_user("ed", is_superuser=True))
    client.raise_request_exception = False
    failing_with(error_of(fault, tmp_path), monkeypatch)
    reply = client.post(f"{API}/experiments/", BODY | {"project": "lab"}, format="json")
    assert words in problem(reply, 503)["detail"]
    assert reply["Retry-After"] == "5"
    assert not Run.objects.exists()


def test_a_full_disk_of_files_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    make_project("lab")
    client = client_of(make_user("ed", is_superuser=True))
    client.raise_request_exception = False
    failing_with(OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    reply = client.post(f"{API}/experiments/", BODY | {"project": "lab"}, format="json")
    assert "disk is full" in problem(reply, 503)["detail"]


def test_a_fault_in_the_code_is_a_problem_without_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    make_project("lab")
    client = client_of(make_user("ed", is_superuser=True))
    client.raise_request_exception = False
    failing_with(KeyError("a secret of the code"), monkeypatch)
    reply = client.post(f"{API}/experiments/", BODY | {"project": "lab"}, format="json")
    assert problem(reply, 500)["detail"] == "the service failed; the error is in its log"
    assert "Retry-After" not in reply


def test_a_page_says_that_the_service_is_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project("lab")
    browser = Client(raise_request_exception=False)
    browser.force_login(make_user("ed", is_superuser=True))
    form = sent_by(browser.get("/experiments/new/").content.decode()) | {"name": ["n"]}
    failing_with(error_of(_locked, tmp_path), monkeypatch)
    reply = browser.post("/experiments/new/", form)
    assert (reply.status_code, reply["Retry-After"]) == (503, "5")
    assert "The database is locked by another writer" in reply.content.decode()
