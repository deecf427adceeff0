"""A small form of `python -m tests.chaos.day`: a few hours of a few workers in virtual time, every event checked;
and a test that the checks see each kind of damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import F

from experiments.clock import db_now
from experiments.models import Attempt, Event, Frame, Group, Run
from experiments.states import State
from tests.chaos.monitor import Monitor
from tests.chaos.virtual import VirtualClock, virtual_clock
from tests.chaos.workday import Day, DayPlan

from .factories import claim, make_run, train

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with virtual_clock() as clock:
        yield clock


def test_whoever_dies_the_invariants_hold_at_every_event_and_every_run_ends(clock: VirtualClock) -> None:
    day = Day(DayPlan(seed=5, hours=4, workers=8, load=0.8), clock)
    day.live()
    assert day.monitor.violations == []
    assert len(day.monitor.histories) == day.did["submitted"] > 5
    assert day.monitor.counts["taken back"] >= 1
    assert day.did["stale writes refused"] >= 6
    for run in Run.objects.filter(state=State.SUCCEEDED):
        assert run.attempts.filter(outcome=State.SUCCEEDED).count() == 1


def test_statements_that_the_connection_has_met_tell_the_virtual_time_too() -> None:
    """Those that earlier tests had sent went on with SQLite's own function, and a day came out otherwise."""
    before = db_now()
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=1)
    with virtual_clock() as clock:
        assert db_now() == clock.now()
        clock.advance(600)
        assert db_now() == clock.now()
    assert abs(db_now() - datetime.now(UTC)) < timedelta(minutes=1)


def two_holders(run: Run) -> None:
    Attempt.objects.create(run=run, fence=9, host="other", start_step=0, claimed=run.created)


def a_state_out_of_nowhere(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state=State.STOPPING)


def an_illegal_move(run: Run) -> None:
    Event.objects.create(run=run, at=run.created, actor="user", from_state="running", to_state="succeeded", fence=1)


def a_fence_that_shrinks(run: Run) -> None:
    Event.objects.create(run=run, at=run.created, actor="supervisor", kind="x", fence=0)


def progress_without_points(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(committed_step=F("committed_step") + 5)


def a_step_twice(run: Run) -> None:
    first, second = Frame.objects.filter(group__run=run).order_by("first_step")[:2]
    Frame.objects.filter(pk=second.pk).update(data=first.data)
    Run.objects.filter(pk=run.pk).update(state=State.CANCELLED)


def a_row_too_many(run: Run) -> None:
    Group.objects.filter(run=run).update(rows=F("rows") + 1)


def a_crash_that_is_not_counted(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(crash_count=2)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (two_holders, "open attempts: [1, 9]"),
        (a_state_out_of_nowhere, "its history says"),
        (an_illegal_move, "user moved running → succeeded"),
        (a_fence_that_shrinks, "fence 1 → 0"),
        (progress_without_points, "10 rows for 15 steps"),
        (a_step_twice, "a step is missing or twice"),
        (a_row_too_many, "11 rows for 10 steps"),
        (a_crash_that_is_not_counted, "counts 2 crashes"),
    ],
)
def test_damage_would_be_seen(damage: Callable[[Run], None], words: str) -> None:
    run = make_run()
    train(claim(run).held, 0, 10)
    monitor = Monitor()
    monitor.look(0.0)
    assert monitor.violations == []
    damage(Run.objects.get(pk=run.pk))
    monitor.look(1.0, run.pk)
    assert any(words in each for each in monitor.violations), monitor.violations
