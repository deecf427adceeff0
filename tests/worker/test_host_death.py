"""A whole machine dies at once, in the middle of a run: another one goes on from the checkpoint, and nobody could tell
afterwards but from the history."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from experiments.models import Run
from experiments.states import Actor, Reason, State
from tests.worker import processes
from tests.worker.runs import ended, fresh, queue, reaches, recorded
from tests.worker.test_training import assert_same, history, holder

STEPS, EVERY, DIES_AFTER = 120, 30, 40
LEASE_S = float(processes.SHORT["ATTN_LEASE_S"])
Hire = Callable[..., processes.Worker]


def cut_the_power(worker: processes.Worker) -> list[int]:
    """Kill the worker, its slots and its trainers as one. Each is frozen first, parents before children: a supervisor
    that outlived its trainer by a millisecond would report a crash, which no dead machine does."""
    family = [psutil.Process(worker.pid), *worker.family()]
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(process)
    worker.popen.wait()
    pids = [process.pid for process in family]
    processes.wait_for(lambda: not any(map(processes.is_alive, pids)), 2, f"none of {pids} is left")
    return pids


def early(run: Run, below: int) -> dict[str, tuple[np.ndarray[Any, Any], ...]]:
    """Steps, values and times of every series before a step."""
    kept = {name: (each, each.steps < below) for name, each in recorded(run).items()}
    return {name: (each.steps[mask], each.values[mask], each.times[mask]) for name, (each, mask) in kept.items()}


def assert_kept(run: Run, before: dict[str, tuple[np.ndarray[Any, Any], ...]], below: int) -> None:
    """What stands before a step is what stood there, of `time/*` and `system` too: no two attempts agree on those."""
    after = early(run, below)
    assert {name for name in after if len(after[name][0])} == {name for name in before if len(before[name][0])}
    for name, (steps, values, times) in before.items():
        np.testing.assert_array_equal(after[name][0], steps, err_msg=name)
        np.testing.assert_array_equal(after[name][1], values, err_msg=name)
        np.testing.assert_allclose(after[name][2], times, atol=0.002, err_msg=name)  # blocks keep milliseconds


@contextlib.contextmanager
def told_in_full(run: Run) -> Iterator[None]:
    """On a failure print what became of the run."""
    try:
        yield
    except AssertionError:
        for event in run.events.order_by("id"):
            print(event.at, event.actor, event.who, event.kind, event.to_state, event.fence, event.step, event.message)
        for attempt in run.attempts.order_by("id"):
            print(attempt.fence, attempt.worker, attempt.claimed, attempt.ended, attempt.outcome, attempt.start_step)
        raise


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_when_a_machine_dies_another_goes_on_in_time_and_repeats_only_what_the_checkpoint_lacks(hire: Hire) -> None:
    hosts = [hire("hosts") for _ in range(2)]
    for host in hosts:
        host.ready()
    unharmed = history(ended(queue(STEPS, every=EVERY, pool="hosts")))
    run = reaches(queue(STEPS, every=EVERY, pool="hosts"), DIES_AFTER)
    dead = holder(hosts, run.attempts.get())
    with told_in_full(run):
        cut_the_power(dead)
        died = time.monotonic()
        left = fresh(run)
        saved, before = left.checkpoint_step, early(left, left.checkpoint_step)
        assert EVERY <= saved <= left.committed_step < STEPS
        assert left.state == State.RUNNING, "nobody has noticed yet"

        processes.wait_for(
            lambda: run.attempts.count() == 2, LEASE_S + 10 - (time.monotonic() - died), "another claims it"
        )
        ended(run)

        first, second = run.attempts.order_by("fence")
        assert (first.outcome, first.end_step) == (Reason.LEASE_EXPIRED, left.committed_step)
        assert (second.outcome, second.start_step) == (State.SUCCEEDED, saved)
        assert (first.worker.name, second.worker.name) == (dead.node, *[h.node for h in hosts if h is not dead])
        # Taking the run from the dead bumps the fence (2) so that no late write can touch it; the claim bumps it again.
        assert [first.fence, second.fence, fresh(run).fence] == [1, 3, 3]
        taken = run.events.get(actor=Actor.RECONCILER, to_state=State.QUEUED)
        assert f"no heartbeat from {dead.node} within the lease" in taken.message

        assert_kept(run, before, saved)
        assert_same(run, unharmed)
