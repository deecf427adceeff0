"""The queue: who is claimed next, which place a run has and why it waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from experiments import lifecycle
from experiments.models import Lane, Run
from experiments.queue.order import ordinal, queue_order, waits

from .factories import claim, make_experiment, make_project, make_run, make_user, make_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


def why(run: Run) -> tuple[int | None, str]:
    wait = waits([Run.objects.get(pk=run.pk)])[run.pk]
    return wait.place, wait.reason


def taken() -> int:
    held = lifecycle.claim(["cpu"], make_worker())
    assert held is not None
    return held.held.run_id


def test_projects_take_turns_and_so_do_users_within_one() -> None:
    ours, theirs, ann, bob = make_project(), make_project(), make_user(), make_user()
    many = list(make_experiment(ours, ann, seeds=[1, 2, 3, 4]).runs.order_by("pk"))
    bobs = make_experiment(ours, bob).runs.get()
    other = make_experiment(theirs, bob).runs.get()
    order = []
    for _ in range(6):
        order.append(queue_order("cpu")[0])
        assert taken() == order[-1]
    assert order[0] == many[0].pk
    assert other.pk in order[:2]
    assert bobs.pk in order[:3]


def test_what_a_project_has_used_counts_and_fades(settings: Any) -> None:
    first, second = make_project(), make_project()
    make_run(first), make_run(second)
    lanes = {lane.project_id: lane for lane in Lane.objects.all()}
    Lane.objects.filter(pk=lanes[first.pk].pk).update(used=100.0, used_at=Now())
    assert Run.objects.get(pk=queue_order("cpu")[0]).project == second
    Lane.objects.filter(pk=lanes[second.pk].pk).update(
        used=1000.0, used_at=Now() - timedelta(seconds=10 * settings.ATTN_SHARE_HALF_LIFE_S)
    )
    assert Run.objects.get(pk=queue_order("cpu")[0]).project == second, "ten half-lives ago is hardly anything"


def test_an_attempt_that_ends_is_charged_to_its_lane() -> None:
    run = make_run()
    held = claim(run).held
    run.attempts.update(claimed=Now() - timedelta(seconds=120))
    lifecycle.crash(held, "")
    assert 119 < Lane.objects.get().used < 130


def test_a_run_that_has_waited_for_too_long_overtakes_urgent_ones(settings: Any) -> None:
    settings.ATTN_QUEUE_PATIENCE_S = 3600
    late, urgent = make_run(), make_run(priority=9)
    Run.objects.filter(pk=late.pk).update(created=Now() - timedelta(hours=2))
    Lane.objects.filter(project=urgent.project).update(used=10.0, used_at=Now())
    assert taken() == late.pk


def test_a_project_holds_no_more_than_its_limit_and_its_runs_say_so(settings: Any) -> None:
    project, worker = make_project(), make_worker(slots=9)
    project.max_running = 1
    project.save()
    runs = list(make_experiment(project, seeds=[1, 2]).runs.order_by("pk"))
    assert lifecycle.claim(["cpu"], worker)
    assert lifecycle.claim(["cpu"], worker) is None
    assert why(runs[1]) == (None, "project at its limit of 1 running")
    settings.ATTN_PROJECT_RUNNING = 5
    project.max_running = None
    project.save()
    assert lifecycle.claim(["cpu"], worker)


def test_a_run_says_its_place_and_why_it_waits() -> None:
    runs = list(make_experiment(seeds=[1, 2, 3]).runs.order_by("pk"))
    assert why(runs[1]) == (2, "no worker serves pool cpu; 2nd for pool cpu")
    worker = make_worker(slots=1)
    assert why(runs[0]) == (1, "1st for pool cpu; 1 of 1 slots free, about to be claimed")
    assert why(runs[1]) == (2, "2nd for pool cpu; 1 of 1 slots free, 1 run before it")
    assert why(runs[2]) == (3, "3rd for pool cpu; 1 of 1 slots free, 2 runs before it")
    claim(runs[0], worker)
    assert why(runs[2]) == (2, "2nd for pool cpu; 1 of 1 slots busy")
    Run.objects.filter(pk=runs[2].pk).update(next_at=Now() + timedelta(seconds=60), crash_count=2)
    place, reason = why(runs[2])
    assert place is None
    assert reason.startswith("back-off until ")
    assert reason.endswith("after 2 crashes")
    lifecycle.drain_worker(worker.name, True, make_user())
    assert why(runs[1]) == (1, "1st for pool cpu; every worker that serves it is draining")
    assert waits([Run.objects.get(pk=runs[0].pk)]) == {}, "it does not wait"


def test_a_row_without_a_lane_is_claimed_too() -> None:
    run = make_run()
    Run.objects.filter(pk=run.pk).update(lane=None)
    assert queue_order("cpu") == [run.pk]
    assert taken() == run.pk


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th",
    ]  # fmt: skip
