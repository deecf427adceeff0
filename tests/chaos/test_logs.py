"""Logs of a storm: what a kill explains is passed over, what is a bug of ours is told."""

from __future__ import annotations

import pytest

from tests.chaos.logs import complaints

TRACE = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n    ^^^\n'
FAILED = "2026-11-24 03:24:01,481 ERROR workers.supervisor.attempt.supervision: run 7: the supervisor failed\n"
ROUND = (
    "2026-11-24 03:24:01,481 ERROR experiments.maintenance.reconciler: the reconciler's round failed; it tries again\n"
)
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
AFTER = "2026-11-24 03:24:02,481 INFO workers.tasks: run 7: claimed with fence 3 at step 20\n"


@pytest.mark.parametrize(
    "raised",
    [
        'django.db.utils.OperationalError: connection failed: connection to server on socket "x" failed: FATAL: x',
        "django.db.utils.OperationalError: consuming input failed: server closed the connection unexpectedly",
        "django.db.utils.OperationalError: database is locked",
        "django.db.utils.InterfaceError: the connection is closed",
        "redis.exceptions.ConnectionError: Error 2 connecting to unix socket: x. No such file or directory.",
        "redis.exceptions.BusyLoadingError",
        "kombu.exceptions.OperationalError: Error 111 connecting",
        "billiard.exceptions.WorkerLostError: Worker exited prematurely: signal 9 (SIGKILL) Job: 0.",
    ],
)
def test_what_the_death_of_another_process_explains_is_passed_over(raised: str) -> None:
    assert complaints(f"{ROUND}{TRACE}{raised}\n{AFTER}") == []


@pytest.mark.parametrize(
    "raised",
    [
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/scratch/7-2/maps'",
        "KeyError: 'train'",
        "AssertionError",
        "django.db.utils.OperationalError: no such table: experiments_run",
        "django.db.utils.OperationalError: deadlock detected",
        "django.db.utils.IntegrityError: UNIQUE constraint failed",
        "experiments.lifecycle.moves.NotAllowed: supervisor may not move run 7 from claimed to succeeded",
        "billiard.exceptions.WorkerLostError: Worker exited prematurely: signal 11 (SIGSEGV) Job: 0.",
    ],
)
def test_what_nothing_from_outside_explains_is_told_with_who_told_it(raised: str) -> None:
    (words,) = complaints(f"{AFTER}{FAILED}{TRACE}{raised}\n{AFTER}")
    assert "run 7: the supervisor failed" in words
    assert words.endswith(raised)


def test_a_chain_is_one_exception_and_its_last_link_counts() -> None:
    inner, outer = (
        "psycopg.OperationalError: connection failed: x",
        "django.db.utils.OperationalError: connection failed",
    )
    assert complaints(f"{ROUND}{TRACE}{inner}\n{CAUSE}{TRACE}{outer}\n{AFTER}") == []
    (words,) = complaints(f"{ROUND}{TRACE}{inner}\n{CAUSE}{TRACE}ValueError: a bug while handling it\n{AFTER}")
    assert "ValueError" in words
    assert "round failed" in words


def test_a_traceback_that_a_kill_cut_off_is_no_complaint_and_hides_none() -> None:
    cut = "\n".join(TRACE.splitlines()[:2])
    assert complaints(f"{ROUND}{cut}\n") == []
    assert len(complaints(f"{ROUND}{cut}\n{AFTER}{FAILED}{TRACE}KeyError: 1\n")) == 1


def test_a_traceback_that_quotes_another_is_judged_by_what_it_quotes() -> None:
    lost = "billiard.exceptions.WorkerLostError: Worker exited prematurely: signal {} Job: 0."
    quoting = f'{FAILED}{TRACE}billiard.einfo.ExceptionWithTraceback: \n"""\n{TRACE}{lost}\n"""\n{AFTER}'
    assert complaints(quoting.format("9 (SIGKILL)")) == []
    assert len(complaints(quoting.format("11 (SIGSEGV)"))) == 1
