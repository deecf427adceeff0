"""The main path with the real trainer: whatever is killed, the history is whole and the same, bit for bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.core.files.storage import default_storage

from experiments.models import Group, Run
from experiments.states import Reason, State
from tests.worker import fleet
from tests.worker.looking import ended, fresh, queue, reaches, recorded

STEPS = 60


def training(pool: str, steps: int = STEPS) -> Run:
    return queue(steps=steps, every=10, pool=pool, seed=3)


def history(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    """Every value of every series that does not tell the time, after a check that the steps have no gap."""
    run = fresh(run)
    assert run.state == State.SUCCEEDED, (run.state, run.detail)
    found = {}
    for group in Group.objects.filter(run=run).exclude(name="system"):
        steps, values = recorded(run, group.name)
        wanted = range(run.steps) if group.name == "train" else sorted(set(steps))
        assert steps == list(wanted)
        found |= {name: row for name, row in zip(group.names, values, strict=True) if not name.startswith("time/")}
    return found


def assert_same(run: Run, reference: dict[str, np.ndarray[Any, Any]]) -> None:
    values = history(run)
    assert values.keys() == reference.keys()
    for name, row in values.items():
        np.testing.assert_array_equal(row, reference[name], err_msg=name)


@pytest.mark.slow
def test_an_unharmed_run_has_every_series_at_every_step(laboratory: fleet.Worker) -> None:
    run = ended(training("lab"), 60)
    series = history(run)
    for name in ("loss/total", "lr", "grad_norm/total", "grad_norm/clip_scale"):
        assert len(series[name]) == STEPS
    for matrix in ("W_q", "W_k", "W_v"):
        norms = [name for name in series if name.startswith("grad_norm/") and name.endswith(f"/{matrix}")]
        assert norms
        assert all(np.isfinite(series[name]).all() for name in norms)
    pictures = run.artifacts.filter(kind="prediction")
    assert pictures.exists()
    with default_storage.open(pictures[0].path) as kept:
        assert kept.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_killed_trainers_and_slots_leave_the_same_bits_as_an_unharmed_run(laboratory: fleet.Worker) -> None:
    reference = history(ended(training("lab"), 60))
    run = training("lab")
    for until in (15, 35):
        victim = reaches(run, until).attempts.order_by("fence").last()
        os.kill(victim.pid, signal.SIGKILL)
        fleet.wait_for(lambda fence=victim.fence: fresh(run).fence > fence, 30)
    assert_same(ended(run, 60), reference)
    assert run.attempts.filter(outcome=Reason.CRASHED).count() == 2


@pytest.mark.slow
def test_a_worker_that_goes_and_one_that_is_killed_leave_the_same_bits(
    laboratory: fleet.Worker, hire: Callable[..., fleet.Worker]
) -> None:
    reference = history(ended(training("lab"), 60))
    run = training("away")
    first = hire("away").ready()
    reaches(run, 12)
    assert first.stop(within=20) == 0
    assert fresh(run).reason == Reason.PREEMPTED
    second = hire("away").ready()
    reaches(run, fresh(run).checkpoint_step + 5)
    pids = [process.pid for process in second.family()]
    os.kill(second.pid, signal.SIGKILL)
    fleet.wait_for(lambda: not any(map(fleet.is_alive, pids)), 5)
    hire("away")
    assert_same(ended(run, 60), reference)
