"""What the tests here ask about a run, and runs to ask about."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.models import Frame, Group, Run
from experiments.states import ENDED, State
from experiments.store import codec
from tests.service.factories import make_run
from tests.worker import fleet
from tests.worker.scripted import NAMES, value


def queue(steps: int = 40, *, pool: str = "cpu", every: int = 10, seed: int = 1, **fields: Any) -> Run:
    """A run in the line, for a scripted or a real trainer."""
    spec = {
        "task": "classify",
        "seed": seed,
        "data": {"dataset": "digits"},
        "model": {"d_model": 16, "heads": 2, "ffn": 16, "layers": 1, "patch": 4},
        "optimizer": {"warmup_steps": 2},
        "train": {"steps": steps, "batch_size": 8, "eval_every": 10, "checkpoint_every": every, "predictions": 1},
        "record": {"probe_every": 10},
        "resources": {"threads": 1, "pool": pool},
    }
    return make_run(spec=spec, **fields)


def fresh(run: Run) -> Run:
    return Run.objects.get(pk=run.pk)


def ended(run: Run, within: float = 30.0) -> Run:
    """The run once it has ended."""
    fleet.wait_for(lambda: fresh(run).state in ENDED, within, f"run {run.pk} ends")
    return fresh(run)


def reaches(run: Run, step: int, within: float = 30.0) -> Run:
    """The run once so many steps are committed."""
    fleet.wait_for(lambda: fresh(run).committed_step >= step, within, f"run {run.pk} reaches step {step}")
    return fresh(run)


def story(run: Run) -> list[str]:
    """The states it went through."""
    return [event.to_state for event in run.events.order_by("id") if event.to_state]


def recorded(run: Run, group: str) -> tuple[list[int], np.ndarray[Any, Any]]:
    """Every stored step of a group in stored order, and the values; duplicates and gaps would show."""
    rows = [codec.decode(frame.data) for frame in Frame.objects.filter(group__run=run, group__name=group)]
    assert len({tuple(each.names) for each in Group.objects.filter(run=run, name=group)}) == 1
    return [int(step) for row in rows for step in row.steps], np.concatenate([row.values for row in rows], axis=1)


def assert_whole(run: Run, seed: int = 1) -> None:
    """A scripted run that succeeded has each value exactly once."""
    run = fresh(run)
    assert run.state == State.SUCCEEDED, (run.state, run.reason, run.detail)
    steps, values = recorded(run, "train")
    assert steps == list(range(run.steps))
    wanted = [[value(seed, step, column) for step in steps] for column in range(len(NAMES))]
    np.testing.assert_array_equal(values, np.asarray(wanted, dtype=np.float32))
