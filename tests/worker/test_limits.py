"""A run that takes too long, grows too large or makes no step is ended with words."""

from __future__ import annotations

from collections.abc import Callable

from django.core.files.storage import default_storage

from experiments.states import Reason, State
from tests.worker import processes
from tests.worker.runs import assert_whole, ended, fresh, queue

Hire = Callable[..., processes.Worker]


def test_a_run_that_takes_longer_than_it_may_fails_with_the_reason(worker: processes.Worker) -> None:
    worker.play({"hold_at": 5})
    run = ended(queue(overrides={"resources.max_minutes": 0.02}))
    assert (run.state, run.reason) == (State.FAILED, Reason.LIMIT)
    assert "resources.max_minutes = 0.02" in run.detail


def test_a_run_that_grows_larger_than_it_may_fails_with_the_reason(worker: processes.Worker) -> None:
    worker.play({"hold_at": 5, "eat_mb": 300})
    run = ended(queue(overrides={"resources.max_memory_mb": 200}))
    assert (run.state, run.reason) == (State.FAILED, Reason.LIMIT)
    assert "resources.max_memory_mb = 200" in run.detail


def test_a_stuck_trainer_is_stopped_its_stacks_are_kept_and_the_next_one_goes_on(hire: Hire) -> None:
    worker = hire("stuck", script={"stuck_at": 15}, ATTN_STUCK_S="2").ready()
    run = queue(steps=30, every=10, pool="stuck")
    stacks = processes.wait_for(lambda: run.artifacts.filter(name="stacks-1.txt").first())
    worker.play({})
    with default_storage.open(stacks.path) as file:
        assert b"scripted.py" in file.read()
    assert_whole(ended(run))
    assert any("stuck: it made no step for" in event.message for event in run.events.all())
    assert fresh(run).attempts.last().outcome == Reason.STUCK
