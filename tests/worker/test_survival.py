"""Kill, stop and starve the parts of a worker in the middle of a run: it still ends whole, and no process stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from experiments.models import Worker as WorkerRow
from experiments.states import Actor, Reason, State
from tests.redis_server import RedisServer
from tests.worker import processes
from tests.worker.runs import assert_whole, ended, fresh, queue, reaches, story

HOLD = {"hold_at": 15}
Hire = Callable[..., processes.Worker]


def gone(pids: list[int], within: float = 5.0) -> None:
    processes.wait_for(lambda: not any(map(processes.is_alive, pids)), within, f"none of {pids} is left")


def test_kill_9_of_the_whole_worker_is_survived_and_leaves_no_trainer(hire: Hire) -> None:
    first = hire("hard", script=HOLD).ready()
    run = reaches(queue(steps=30, every=10, pool="hard"), 15)
    pids = [process.pid for process in first.family()]
    assert run.attempts.get().pid in pids
    os.kill(first.pid, signal.SIGKILL)
    gone(pids)
    hire("hard", script={})
    assert_whole(ended(run))
    taken = run.events.filter(actor=Actor.RECONCILER, to_state=State.QUEUED).get()
    assert "within the lease" in taken.message
    assert fresh(run).attempts.order_by("fence").last().start_step == 10


def test_kill_9_of_a_slot_is_survived_by_the_same_worker(hire: Hire) -> None:
    worker = hire("slot", script=HOLD).ready()
    run = reaches(queue(steps=30, every=10, pool="slot"), 15)
    slot = worker.slots()[0]
    pids = [slot.pid, *(child.pid for child in slot.children(recursive=True))]
    os.kill(slot.pid, signal.SIGKILL)
    gone(pids)
    worker.play({})
    assert_whole(ended(run))
    assert run.attempts.count() == 2


def test_sigterm_saves_the_run_hands_it_back_and_another_worker_finishes_it(hire: Hire) -> None:
    first = hire("soft", script=HOLD).ready()
    run = reaches(queue(steps=30, every=10, pool="soft"), 15)
    pids = [process.pid for process in first.family()]
    assert first.stop(within=10) == 0
    gone(pids)
    back = fresh(run)
    assert (back.state, back.reason, back.crash_count) == (State.QUEUED, Reason.PREEMPTED, 0)
    assert back.checkpoint_step == back.committed_step == 16
    assert story(run) == ["queued", "claimed", "running", "stopping", "queued"]
    hire("soft", script={})  # it rings for itself: the first doorbell is long gone
    assert_whole(ended(run))
    assert run.attempts.order_by("fence").last().start_step == back.checkpoint_step


def test_a_run_submitted_while_the_broker_is_down_is_accepted_and_run_later(
    worker: processes.Worker, redis_server: RedisServer
) -> None:
    redis_server.signal(signal.SIGKILL)
    try:
        run = queue(steps=10)
        assert fresh(run).state == State.QUEUED
    finally:
        redis_server.start()
    assert_whole(ended(run))


def test_losing_the_broker_in_mid_run_does_not_touch_the_run(
    worker: processes.Worker, redis_server: RedisServer
) -> None:
    worker.play(HOLD)
    run = reaches(queue(), 15)
    redis_server.signal(signal.SIGKILL)
    try:
        worker.play({"hold_at": 30})
        reaches(run, 30)
    finally:
        redis_server.start()
        worker.play({})
    assert_whole(ended(run))
    assert fresh(run).fence == 1


def test_the_worker_says_what_it_is(worker: processes.Worker) -> None:
    row = processes.wait_for(lambda: WorkerRow.objects.filter(name=worker.node).first())
    assert (row.pools, row.slots, row.pid) == (["cpu"], 1, worker.pid)
    assert row.info["cores"] >= 1
    seen = row.last_seen
    processes.wait_for(lambda: WorkerRow.objects.get(pk=row.pk).last_seen > seen, 5)


def test_two_slots_work_side_by_side_and_leave_nothing(hire: Hire) -> None:
    worker = hire("pair", slots=2, script=HOLD).ready()
    runs = [queue(pool="pair", seed=seed) for seed in (1, 2)]
    processes.wait_for(lambda: [fresh(run).state for run in runs] == [State.RUNNING] * 2)
    worker.play({})
    for seed, run in enumerate(runs, 1):
        assert_whole(ended(run), seed)
    pids = [process.pid for process in worker.family()]
    assert worker.stop(within=10) == 0  # idle by now, with a spare trainer in each slot
    gone(pids)
