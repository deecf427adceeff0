"""A doorbell carries no truth: however often it rings, a run is tried once."""

from __future__ import annotations

import pytest

from experiments.queue.doorbell import ring
from tests.worker import processes
from tests.worker.runs import assert_whole, ended, fresh, queue, reaches

pytestmark = pytest.mark.db


def test_one_doorbell_delivered_a_hundred_times_makes_one_attempt(worker: processes.Worker) -> None:
    worker.play({"hold_at": 15})
    run = queue(pool="cpu")
    assert all(ring("cpu", run.pk) for _ in range(99))  # the submission rang once
    reaches(run, 15)
    worker.play({})
    assert_whole(ended(run))
    later = queue(steps=10, seed=2)
    assert_whole(ended(later), seed=2)  # the worker has waded through all of them
    assert (fresh(run).fence, run.attempts.count()) == (1, 1)
