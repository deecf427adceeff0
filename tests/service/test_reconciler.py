"""The reconciler expires what is silent, rings for what waits, and only one of several acts."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import Mock

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from experiments import lifecycle
from experiments.maintenance import reconciler
from experiments.maintenance.reconciler import LEADER, Reconciler, expire_leases, ring_for_ready
from experiments.models import LeaderLease, Run
from experiments.states import Desired, Reason, State

from .factories import claim, make_run, make_worker

pytestmark = [pytest.mark.django_db, pytest.mark.db]


def silence(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(lease_until=Now() - timedelta(seconds=1))


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What would go to the broker; delivery itself is tested with a real one in tests/worker."""
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(reconciler, "ring", lambda pool, run_id: sent.append((pool, run_id)) or True)
    return sent


def test_a_silent_holder_loses_its_run_and_a_renewed_one_keeps_it() -> None:
    silent, alive = make_run(priority=1), make_run()
    claim(silent), claim(alive)
    silence(silent)
    assert expire_leases() == 1
    silent.refresh_from_db(), alive.refresh_from_db()
    assert (silent.state, silent.reason, silent.crash_count) == (State.QUEUED, Reason.LEASE_EXPIRED, 1)
    assert alive.state == State.RUNNING


def test_it_rings_at_most_as_often_as_a_pool_has_idle_slots(rings: list[tuple[str, int]]) -> None:
    for _ in range(5):
        make_run()
    make_run(pool="gpu")
    assert ring_for_ready() == 0, "nobody could come"
    make_worker(slots=2)
    assert ring_for_ready() == 2
    claim()
    rings.clear()
    assert ring_for_ready() == 2, "another worker with one slot has come and taken one run"
    assert {pool for pool, _ in rings} == {"cpu"}


def test_it_does_not_ring_for_what_is_backing_off_or_cancelled(rings: list[tuple[str, int]]) -> None:
    make_worker()
    Run.objects.filter(pk=make_run().pk).update(next_at=Now() + timedelta(seconds=60))
    Run.objects.filter(pk=make_run().pk).update(desired=Desired.CANCEL)
    assert ring_for_ready() == 0
    Run.objects.update(next_at=Now() - timedelta(seconds=1))
    assert ring_for_ready() == 1


def test_of_two_reconcilers_one_acts_until_its_lease_has_passed() -> None:
    first, second = Reconciler(), Reconciler()
    second.owner += "-other"
    assert [first.tick(), second.tick(), first.tick()] == [True, False, True]
    LeaderLease.objects.filter(name=LEADER).update(lease_until=Now() - timedelta(seconds=1))
    assert [second.tick(), first.tick()] == [True, False]


def test_after_a_gap_in_its_beats_it_waits_one_lease_before_it_expires_anything(settings) -> None:
    settings.ATTN_LEASE_S = 2
    run = make_run()
    claim(run)
    seconds = [0.0]
    keeper = Reconciler(monotonic=lambda: seconds[0])
    keeper.tick()
    silence(run)
    LeaderLease.objects.update(renewed=Now() - timedelta(seconds=settings.ATTN_LEASE_S * 0.6))
    for seconds[0], state in ((0.0, State.RUNNING), (1.9, State.RUNNING), (2.0, State.QUEUED)):
        keeper.tick()
        run.refresh_from_db()
        assert run.state == state


def test_a_worker_that_said_goodbye_has_no_slots_and_an_older_process_cannot_say_it_for_a_newer() -> None:
    worker = make_worker("local")
    lifecycle.retire_worker("local", pid=worker.pid + 1)
    assert lifecycle.idle_slots("cpu") == 1
    lifecycle.retire_worker("local", pid=worker.pid)
    assert lifecycle.idle_slots("cpu") == 0
    make_worker("local")
    assert lifecycle.idle_slots("cpu") == 1, "it has come back"


def test_an_outage_of_the_database_is_a_line_a_minute_and_one_at_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = [0.0]
    keeper = Reconciler(monotonic=lambda: seconds[0])
    monkeypatch.setattr(reconciler, "close_old_connections", lambda: None)  # the test's own is open
    with monkeypatch.context() as patched:
        patched.setattr(
            keeper, "tick", Mock(side_effect=OperationalError("connection refused\nIs the server running?"))
        )
        for _ in range(25):  # two minutes of rounds
            keeper.round()
            seconds[0] += 5
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"no database for {after} s (connection refused); trying again" for after in (0, 60, 120)]
    caplog.clear()
    keeper.round()
    keeper.round()
    assert [record.getMessage() for record in caplog.records if "answers" in record.message] == [
        "the database answers again after 125 s"
    ]
    assert not [record for record in caplog.records if record.exc_info]
