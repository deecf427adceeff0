"""The races that a queue can lose, forced one by one. Each has a control: the same race with its guard taken out
must be lost, or the test would prove nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection
from django.db.models.functions import Now

from experiments import lifecycle, store
from experiments.lifecycle import Claim, LeaseLost
from experiments.maintenance.reconciler import LEADER, Reconciler
from experiments.models import LeaderLease, Run
from experiments.models.runs import RunQuerySet
from experiments.states import State
from workers.supervisor.attempt.database import Database

from .factories import claim, frame, make_run, make_worker, train
from .guards import between, without

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]
HANDOVERS, WRITES = 50, 20


@pytest.fixture(autouse=True)
def _patient(settings: Any) -> None:
    settings.ATTN_BACKOFF_S = 0
    settings.ATTN_CRASH_LIMIT = 10_000


def pass_on(run: Run) -> Claim:
    """The lease passes, and somebody else takes the run."""
    Run.objects.filter(pk=run.pk).update(lease_until=Now() - timedelta(seconds=1))
    assert lifecycle.expire(run.pk)
    return claim(run)


def stale_writes(run: Run) -> int:
    """How many of HANDOVERS × WRITES flushes of outdated holders are stored. Each follows the committed step and
    carries the right points: nothing but the fence speaks against it."""
    accepted = 0
    holder = claim(run)
    for _ in range(HANDOVERS):
        stale, holder = holder, pass_on(run)
        for _ in range(WRITES):
            step = Run.objects.values_list("committed_step", flat=True).get(pk=run.pk)
            try:
                lifecycle.commit(stale.held, step, step + 1, [frame(step, step + 1)])
            except LeaseLost:
                continue
            accepted += 1
    return accepted


def test_of_a_thousand_stale_writes_a_thousand_are_refused() -> None:
    run = make_run()
    assert stale_writes(run) == 0
    assert store.read([run.pk], ["**"]) == []


def test_control_without_the_fence_a_thousand_of_a_thousand_stale_writes_are_stored() -> None:
    with without(Run, "fence"):
        assert stale_writes(make_run()) == HANDOVERS * WRITES == 1000


def all_claim(workers: int = 20) -> int:
    """So many workers have all seen the same queued run before the last of them takes it, and then each other tries.
    How many have it."""
    if not workers:
        return 0
    later: list[int] = []
    with between(RunQuerySet, "first", lambda: later.append(all_claim(workers - 1))):
        taken = lifecycle.claim(["cpu"], make_worker())
    return sum(later, int(taken is not None))


def test_of_twenty_workers_that_saw_the_same_run_one_gets_it() -> None:
    run = make_run()
    assert all_claim() == 1
    assert run.attempts.count() == 1


def test_control_without_the_guard_of_a_claim_several_workers_get_one_run() -> None:
    make_run()
    with without(Run, "state", "fence"), pytest.raises(IntegrityError, match="fence"):
        all_claim()  # only the table's own constraint, one attempt per fence, still says no


def test_twenty_workers_that_ring_at_once_make_one_attempt() -> None:
    run = make_run()
    workers = [make_worker() for _ in range(20)]
    together(partial(lifecycle.claim, ["cpu"], worker) for worker in workers)
    run.refresh_from_db()
    assert (run.state, run.fence, run.attempts.count()) == (State.CLAIMED, 1, 1)


def together(calls: Iterator[Callable[[], object]]) -> list[object]:
    """Every call in a thread with a connection of its own, all let go at one moment. Their answers."""
    waiting = list(calls)
    start, answers = threading.Barrier(len(waiting)), []

    def run(call: Callable[[], object]) -> None:
        try:
            connection.ensure_connection()
            start.wait(30)
            answers.append(call())
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(call,)) for call in waiting]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == len(waiting), "one of them failed"
    return answers


def finish_late(run: Run) -> None:
    """A holder has done all and saved it, falls silent, and says so when another one has the run."""
    first = claim(run)
    train(first.held, 0, run.steps)
    lifecycle.publish_checkpoint(first.held, step=run.steps, path="x", sha256="", size=1)
    pass_on(run)
    lifecycle.succeed(first.held)


def test_a_late_finish_is_refused_and_the_new_holder_finishes() -> None:
    run = make_run()
    with pytest.raises(LeaseLost):
        finish_late(run)
    run.refresh_from_db()
    assert run.state == State.RUNNING
    lifecycle.succeed(lifecycle.Held(run.pk, run.fence))
    assert run.events.filter(to_state=State.SUCCEEDED).count() == 1


def test_control_without_the_fence_a_late_finish_ends_a_run_that_another_holds() -> None:
    run = make_run()
    with without(Run, "fence"):
        finish_late(run)
    assert Run.objects.get(pk=run.pk).state == State.SUCCEEDED


@contextmanager
def commit_breaks(*, before: bool) -> Iterator[None]:
    """The next COMMIT's answer never comes. Whether it was carried out, the caller cannot know."""
    plain = connection._commit

    def broken() -> None:
        patch.setattr(connection, "_commit", plain)
        if not before:
            plain()
        raise OperationalError("the server closed the connection unexpectedly")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_commit", broken)
        yield
        assert connection._commit is plain, "it has been met"


def flush(held: lifecycle.Held, lo: int, hi: int) -> None:
    """As a supervisor does it: again until it is answered."""
    Database(urgent=lambda: None).persist(partial(lifecycle.commit, held, lo, hi, [frame(lo, hi)]))


@pytest.mark.parametrize("before", [True, False], ids=["not carried out", "carried out"])
def test_an_ambiguous_commit_is_stored_once(before: bool) -> None:
    taken = claim(run := make_run())
    for lo in range(0, 20, 5):
        with commit_breaks(before=before):
            flush(taken.held, lo, lo + 5)
    (series,) = store.read([run.pk], ["loss/total"])
    assert series.steps.tolist() == list(range(20))


def test_control_without_the_committed_step_an_ambiguous_commit_is_written_twice() -> None:
    taken = claim(make_run())
    # Only the table's own constraint, one frame per first step, still says no.
    with without(Run, "committed_step"), commit_breaks(before=False), pytest.raises(IntegrityError, match="first_step"):
        flush(taken.held, 0, 5)


def expire_twice(run: Run) -> list[bool]:
    """A second reconciler takes the run while the first has seen it silent and not yet acted. What each says."""
    claim(run)
    Run.objects.filter(pk=run.pk).update(lease_until=Now() - timedelta(seconds=1))
    said: list[bool] = []
    with between(RunQuerySet, "first", lambda: said.append(lifecycle.expire(run.pk))):
        said.append(lifecycle.expire(run.pk))
    return said


def test_of_two_reconcilers_that_saw_the_same_silence_one_takes_the_run() -> None:
    run = make_run()
    assert expire_twice(run) == [True, False]
    run.refresh_from_db()
    assert (run.state, run.crash_count, run.fence) == (State.QUEUED, 1, 2)


def test_control_without_the_guard_both_reconcilers_take_the_run() -> None:
    run = make_run()
    with without(Run, "fence", "state", "state__in", "lease_until__lt"):
        assert expire_twice(run) == [True, True]
    assert run.events.filter(to_state=State.QUEUED, actor="reconciler").count() == 2


def both_lead() -> list[bool]:
    first, second = Reconciler(), Reconciler()
    second.owner += "-other"
    Reconciler().tick()
    LeaderLease.objects.filter(name=LEADER).update(owner="gone", lease_until=Now() - timedelta(seconds=1))
    said: list[bool] = []
    with between(LeaderLease.objects, "get_or_create", lambda: said.append(second.tick())):
        said.append(first.tick())
    return said


def test_of_two_reconcilers_that_saw_the_duty_free_one_takes_it() -> None:
    assert both_lead() == [True, False]


def test_control_without_the_guard_two_reconcilers_lead() -> None:
    with without(LeaderLease, "owner", "fence"):
        assert both_lead() == [True, True]


def test_twenty_reconcilers_at_once_count_one_silence_as_one_crash() -> None:
    run = make_run()
    claim(run)
    Run.objects.filter(pk=run.pk).update(lease_until=Now() - timedelta(seconds=1))
    assert sorted(together(partial(lifecycle.expire, run.pk) for _ in range(20))) == [False] * 19 + [True]
    run.refresh_from_db()
    assert (run.state, run.crash_count) == (State.QUEUED, 1)
