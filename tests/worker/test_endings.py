"""How soon a trainer is gone: after a cancel, after SIGTERM to its worker, after the death of any parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from experiments import lifecycle
from experiments.states import Actor, State
from tests.service.factories import make_user
from tests.worker import processes
from tests.worker.runs import ended, fresh, queue, reaches, story

Hire = Callable[..., processes.Worker]


@pytest.mark.parametrize(("script", "killed"), [({"hold_at": 15}, False), ({"stuck_at": 15, "mute": True}, True)])
def test_a_cancelled_trainer_is_gone_before_its_run_is_and_the_history_says_who_and_why(
    worker: processes.Worker, script: dict[str, object], killed: bool
) -> None:
    """One that hears saves its last step; one that is deaf is killed when its time to save is over."""
    worker.play(script)
    run = reaches(queue(), 15)
    pid = processes.wait_for(lambda: fresh(run).attempts.get().pid)
    user = make_user("canceller")
    lifecycle.request_cancel(run.pk, user)
    run = ended(run)
    assert not processes.is_alive(pid)
    told = f"run {run.pk}: killing the trainer: it did not stop in time after a cancel"
    assert (told in worker.log(), run.committed_step) == (killed, 15 if killed else 16)
    assert run.state == State.CANCELLED
    assert run.events.filter(actor=Actor.USER, who="canceller").exists()
    assert run.events.get(to_state=State.STOPPING).message == "cancellation requested"
    assert story(run)[-1] == State.CANCELLED


def test_sigterm_to_a_worker_whose_slot_hangs_ends_it_with_its_trainer_when_the_grace_is_over(hire: Hire) -> None:
    worker = hire("deaf", script={"stuck_at": 15, "mute": True}, ATTN_GRACE_S="4", ATTN_STOP_GRACE_S="3").ready()
    run = reaches(queue(pool="deaf"), 15)
    pids = [process.pid for process in worker.family()]
    assert fresh(run).attempts.get().pid in pids
    worker.slots()[0].suspend()  # deaf as a slot whose database call never returns
    assert worker.stop() == 1, "it would wait for its slot for ever"
    assert "the shutdown deadline has passed" in worker.log()
    processes.wait_for(lambda: not any(map(processes.is_alive, pids)), what="nothing of it is left")
    processes.wait_for(lambda: fresh(run).state == State.QUEUED, what="the lease expires and the run waits again")


@pytest.mark.parametrize("parent", ["main", "slot"])
def test_kill_9_of_a_parent_leaves_no_trainer_ten_seconds_later(hire: Hire, parent: str) -> None:
    worker = hire(f"orphan-{parent}", script={"hold_at": 5, "mute": True}).ready()
    reaches(queue(pool=f"orphan-{parent}"), 5)
    trainers = worker.trainers()
    assert trainers
    os.kill(worker.pid if parent == "main" else worker.slots()[0].pid, signal.SIGKILL)
    processes.wait_for(lambda: not any(map(processes.is_alive, trainers)), 10, f"none of {trainers} is left")
