"""A supervisor and a trainer that behaves in every way a trainer can. Real Celery, real Redis, real files."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from django.core.files.storage import default_storage

from experiments import lifecycle
from experiments.maintenance.reconciler import LEADER
from experiments.models import LeaderLease, Run
from experiments.models import Worker as WorkerRow
from experiments.states import Reason, State
from experiments.submissions.forks import fork_plan
from tests.worker import processes
from tests.worker.runs import assert_whole, ended, fresh, queue, reaches, recorded, story


def rounds() -> int:
    """How many the reconciler has begun."""
    return LeaderLease.objects.filter(name=LEADER).values_list("fence", flat=True).first() or 0


@pytest.mark.db
def test_a_run_succeeds_with_one_value_per_series_and_step(worker: processes.Worker) -> None:
    run = ended(queue(steps=23))
    assert_whole(run)
    assert story(run) == ["queued", "claimed", "running", "succeeded"]
    attempt = run.attempts.get()
    assert attempt.info["torch"] == "none"
    assert attempt.info["source"].keys() == {"commit", "dirty", "lock"}
    assert attempt.device == "scripted"
    assert run.checkpoint_step == 23


def test_only_the_last_two_checkpoints_keep_their_files(worker: processes.Worker) -> None:
    run = ended(queue(steps=40, every=10))
    checkpoints = list(run.checkpoints.all())
    assert [each.step for each in checkpoints] == [40, 30]
    assert all(default_storage.size(each.path) == each.size for each in checkpoints)
    _, files = default_storage.listdir(f"runs/{run.pk}/1")
    assert sorted(files) == sorted(each.path.rsplit("/", 1)[1] for each in checkpoints)


def test_artifacts_and_logs_arrive(worker: processes.Worker) -> None:
    worker.play({"log_lines": 2})
    run = ended(queue(steps=10, every=5))
    assert [(each.step, each.meta) for each in run.artifacts.all()] == [(4, {"n": 1}), (9, {"n": 1})]
    with default_storage.open(run.artifacts.first().path) as kept:
        assert kept.read() == b"picture of step 4"
    text = "".join(run.logs.order_by("id").values_list("text", flat=True))
    assert [f"step {step} line {line}" for step in range(10) for line in range(2)] == [
        line for line in text.splitlines() if " line " in line
    ]
    assert "saved step 10" in text


def test_a_trainer_that_dies_is_replaced_and_resumes_at_its_checkpoint(worker: processes.Worker) -> None:
    worker.play({"crash_at": 17})
    run = ended(queue(steps=30, every=10))
    assert_whole(run)
    first, second = run.attempts.order_by("fence")
    assert (first.outcome, second.start_step) == (Reason.CRASHED, 10)
    words = run.events.filter(to_state=State.QUEUED).last()
    assert words is not None
    assert run.crash_count == 0


def test_a_run_that_always_crashes_at_the_same_step_is_poisoned(worker: processes.Worker) -> None:
    worker.play({"crash_always": 3})
    run = ended(queue(steps=20))
    assert (run.state, run.reason, run.fence) == (State.FAILED, Reason.POISONED, 3)
    assert "SIGKILL" in run.detail
    assert "about to die" in run.detail  # the last lines of its output


def test_a_failure_that_would_come_again_ends_the_run_with_its_traceback(worker: processes.Worker) -> None:
    worker.play({"fail_at": 7})
    run = ended(queue(steps=20))
    assert (run.state, run.reason, run.fence, run.committed_step) == (State.FAILED, Reason.NAN, 1, 7)
    assert "Traceback: here" in run.detail


@pytest.mark.db
def test_kill_9_of_the_trainer_in_mid_run_costs_no_value(worker: processes.Worker) -> None:
    worker.play({"hold_at": 15})
    run = reaches(queue(steps=30, every=10), 15)
    os.kill(run.attempts.get().pid, signal.SIGKILL)
    worker.play({})
    assert_whole(ended(run))
    assert run.attempts.count() >= 2


def test_a_cancelled_trainer_is_gone_within_five_seconds(worker: processes.Worker) -> None:
    worker.play({"hold_at": 5})
    run = reaches(queue(), 5)
    pid = run.attempts.get().pid
    lifecycle.request_cancel(run.pk, None)
    processes.wait_for(lambda: not processes.is_alive(pid), 5)
    assert ended(run, 5).state == State.CANCELLED
    assert fresh(run).committed_step == fresh(run).checkpoint_step


def test_a_trainer_deaf_to_a_cancel_is_killed_with_its_children_within_five_seconds(worker: processes.Worker) -> None:
    worker.play({"hold_at": 5, "mute": True, "spawn": True})
    run = reaches(queue(), 5)
    pid = run.attempts.get().pid
    children = psutil.Process(pid).children()
    assert children
    lifecycle.request_cancel(run.pk, None)
    processes.wait_for(lambda: not any(map(processes.is_alive, [pid, *(child.pid for child in children)])), 5)
    assert ended(run, 5).state == State.CANCELLED


def test_a_cancelled_run_goes_on_from_its_checkpoint_when_it_is_retried(worker: processes.Worker) -> None:
    worker.play({"hold_at": 15})
    run = reaches(queue(steps=30, every=10), 15)
    lifecycle.request_cancel(run.pk, None)
    ended(run)
    worker.play({})
    lifecycle.retry(run.pk, None)
    processes.wait_for(lambda: fresh(run).state == State.SUCCEEDED)
    assert_whole(run)
    assert run.attempts.order_by("fence").last().start_step == 16


def test_a_fork_is_trained_from_its_parents_file(worker: processes.Worker) -> None:
    parent = queue(steps=20, every=10)
    ended(parent)
    changed = fork_plan(fresh(parent), 10, {"optimizer.lr": 0.5, "train.steps": 30})
    child = lifecycle.fork(fresh(parent), 10, changed, None)
    child = ended(child)
    assert (child.state, child.parent_id, child.fence) == (State.SUCCEEDED, parent.pk, 1)
    assert recorded(child)["lr"].steps.tolist() == list(range(10, 30))  # the parent has the rest
    assert default_storage.exists(parent.checkpoints.get(step=10).path)


def test_of_a_damaged_and_a_missing_checkpoint_the_one_before_is_used(worker: processes.Worker) -> None:
    worker.play({"hold_at": 25})
    run = reaches(queue(steps=40, every=10), 25)
    lifecycle.request_cancel(run.pk, None)
    ended(run)
    newest, before = run.checkpoints.all()
    with Path(default_storage.path(newest.path)).open("ab") as kept:
        kept.write(b"bit rot")
    lifecycle.retry(run.pk, None)
    processes.wait_for(lambda: fresh(run).committed_step == 25 and fresh(run).fence == 2)  # it trains 20 to 25 anew
    lifecycle.request_cancel(run.pk, None)
    ended(run)
    (told,) = run.events.filter(kind="fell back")
    assert "damaged" in told.message
    assert told.message.endswith(f"resuming at step {before.step} instead of {newest.step}")
    assert not default_storage.exists(newest.path)
    for row in run.checkpoints.all():
        default_storage.delete(row.path)
    worker.play({})
    lifecycle.retry(run.pk, None)
    assert_whole(ended(run))  # from the very beginning
    assert run.attempts.first().start_step == 0
    assert "missing" in run.events.filter(kind="fell back").last().message


@pytest.mark.db
def test_a_holder_whose_fence_is_outdated_kills_its_trainer_and_writes_nothing_more(worker: processes.Worker) -> None:
    worker.play({"hold_at": 15})
    run = reaches(queue(steps=100_000, every=100_000), 15)
    pid = run.attempts.get().pid
    Run.objects.filter(pk=run.pk).update(fence=99)  # as if somebody else held it
    worker.play({"pace": 0.001})  # it has much to say until its holder learns of that
    processes.wait_for(lambda: not processes.is_alive(pid), 5)
    assert (fresh(run).state, fresh(run).committed_step, run.attempts.count()) == (State.RUNNING, 15, 1)
    Run.objects.filter(pk=run.pk).update(state=State.FAILED)


def test_a_worker_that_is_drained_in_the_database_hands_its_run_back_and_takes_none(worker: processes.Worker) -> None:
    worker.play({"hold_at": 15})
    run = reaches(queue(steps=30, every=10), 15)
    WorkerRow.objects.update(draining=True)
    processes.wait_for(lambda: fresh(run).state == State.QUEUED, 10)
    before = rounds()
    processes.wait_for(lambda: rounds() >= before + 2, what="the reconciler has had a whole round")
    assert fresh(run).state == State.QUEUED
    assert (fresh(run).crash_count, fresh(run).reason) == (0, Reason.PREEMPTED), fresh(run).detail
    worker.play({})
    WorkerRow.objects.update(draining=False)
    assert_whole(ended(run))
