"""The verdict of a storm must see what it is there to see: each kind of damage, made by hand, is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from experiments import lifecycle
from experiments.models import Attempt, Checkpoint, Event, Frame, Run
from tests.chaos.verdict import Outcome, judge
from tests.service.factories import claim, frame, make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


def finished(weights: bytes = b"weights") -> Run:
    run = make_run()
    held = claim(run).held
    for lo in range(0, 20, 5):
        lifecycle.commit(held, lo, lo + 5, [frame(lo, lo + 5)])
    path = default_storage.save(f"verdict/{run.pk}", ContentFile(weights))
    digest = hashlib.sha256(weights).hexdigest()
    lifecycle.publish_checkpoint(held, step=20, path=path, sha256=digest, size=len(weights))
    lifecycle.succeed(held)
    return Run.objects.get(pk=run.pk)


def verdict(run: Run, reference: Run) -> Outcome:
    return judge({run.pk: 0}, {0: reference.pk})


def test_two_equal_runs_are_found_equal() -> None:
    judged = verdict(finished(), finished())
    assert judged.violations == []
    assert (judged.runs, judged.attempts, judged.series, judged.points) == (1, 1, 2, 40)


def forget_the_run(run: Run) -> None:
    run.experiment.delete()


def leave_it_running(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state="running")


def end_it_again(run: Run) -> None:
    Event.objects.create(run=run, at=run.created, actor="supervisor", kind="succeeded", to_state="succeeded")


def lose_a_frame(run: Run) -> None:
    Frame.objects.filter(group__run=run).order_by("first_step")[1].delete()


def change_a_point(run: Run) -> None:
    mine = Frame.objects.filter(group__run=run).order_by("first_step").last()
    strange = Frame.objects.exclude(group__run=run).order_by("first_step").first()
    Frame.objects.filter(pk=mine.pk).update(data=strange.data)


def change_a_weight(run: Run) -> None:
    data = b"weighed"
    path = default_storage.save(f"verdict/{run.pk}", ContentFile(data))
    Checkpoint.objects.filter(run=run).update(path=path, sha256=hashlib.sha256(data).hexdigest())


def tear_the_file(run: Run) -> None:
    path = default_storage.save(f"verdict/{run.pk}", ContentFile(b"wei"))
    Checkpoint.objects.filter(run=run).update(path=path)


def name_a_file_that_is_not_there(run: Run) -> None:
    run.artifacts.create(kind="file", name="x", step=1, fence=1, media_type="text/plain", path="verdict/gone", size=1)


def turn_the_fence_back(run: Run) -> None:
    Attempt.objects.filter(run=run).update(fence=9)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (forget_the_run, "lost"),
        (leave_it_running, "lost"),
        (end_it_again, "finished twice"),
        (lose_a_frame, "wrong points"),
        (change_a_point, "wrong points"),
        (change_a_weight, "wrong weights"),
        (tear_the_file, "wrong weights"),
        (name_a_file_that_is_not_there, "wrong files"),
        (turn_the_fence_back, "fences"),
    ],
)
def test_damage_is_found_and_named(damage: Callable[[Run], None], kind: str) -> None:
    run, reference = finished(), finished()
    damage(run)
    assert verdict(run, reference).counts[kind] >= 1


def test_a_run_that_nobody_was_told_of_is_a_submission_made_twice() -> None:
    run, reference = finished(), finished()
    finished()
    assert verdict(run, reference).counts["finished twice"] == 1
