"""The main path with the real trainer: whatever is killed, the history is whole and the same, bit for bit."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from django.core.files.storage import default_storage

from experiments.models import Attempt, Run
from experiments.states import Reason, State
from tests.worker import processes
from tests.worker.runs import ended, fresh, queue, reaches, recorded

STEPS = 100


def history(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    """Every value of every series that does not tell the time, after a check that no step lacks or doubles one."""
    run = fresh(run)
    assert run.state == State.SUCCEEDED, (run.state, run.detail)
    series = {name: each for name, each in recorded(run).items() if each.group != "system"}
    for each in series.values():
        steps = each.steps.tolist()
        assert steps == (list(range(run.steps)) if each.group == "train" else sorted(set(steps)))
    return {name: each.values for name, each in series.items() if not name.startswith("time/")}


def assert_same(run: Run, reference: dict[str, np.ndarray[Any, Any]]) -> None:
    values = history(run)
    assert values.keys() == reference.keys()
    for name, row in values.items():
        np.testing.assert_array_equal(row, reference[name], err_msg=name)


def assert_complete(run: Run) -> None:
    """What every run has: losses, the norms of every matrix at every step, pictures of its predictions."""
    series = history(run)
    for name in ("loss/total", "lr", "grad_norm/total", "grad_norm/clip_scale"):
        assert len(series[name]) == STEPS
    for matrix in ("W_q", "W_k", "W_v"):
        norms = [name for name in series if name.startswith("grad_norm/") and name.endswith(f"/{matrix}")]
        assert norms
        assert all(len(series[name]) == STEPS and np.isfinite(series[name]).all() for name in norms)
    pictures = run.artifacts.filter(kind="prediction")
    with default_storage.open(pictures[0].path) as kept:
        assert kept.read(8) == b"\x89PNG\r\n\x1a\n"


def held(run: Run, step: int) -> Attempt:
    """The attempt that brings the run past a step."""
    return processes.wait_for(lambda: reaches(run, step, 60).attempts.filter(ended=None, pid__isnull=False).first(), 30)


def holder(workers: list[processes.Worker], attempt: Attempt) -> processes.Worker:
    assert attempt.worker is not None
    return next(worker for worker in workers if worker.node == attempt.worker.name)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_whatever_is_killed_the_history_has_the_same_bits_as_that_of_an_unharmed_run(
    laboratory: list[processes.Worker],
) -> None:
    unharmed, run = queue(STEPS, pool="lab"), queue(STEPS, pool="lab")

    os.kill(held(run, 10).pid, signal.SIGKILL)  # the trainer

    leaves = holder(laboratory, held(run, 30))
    assert leaves.stop(within=20) == 0  # SIGTERM: it saves, hands back and goes
    assert run.attempts.filter(outcome=Reason.PREEMPTED).count() == 1

    dies = holder(laboratory, held(run, 60))
    pids = [dies.pid, *(process.pid for process in dies.family())]
    os.kill(dies.pid, signal.SIGKILL)  # the main process, and with it the slot and the trainer
    processes.wait_for(lambda: not any(map(processes.is_alive, pids)), 5)

    assert_same(ended(run, 120), history(ended(unharmed, 120)))
    assert_complete(unharmed)
    outcomes = list(run.attempts.order_by("fence").values_list("outcome", flat=True))
    assert outcomes == [Reason.CRASHED, Reason.PREEMPTED, Reason.LEASE_EXPIRED, State.SUCCEEDED]
