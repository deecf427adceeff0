"""What the tests here ask about a run, and runs to ask about."""

from __future__ import annotations

from typing import Any

from django.db.models import F

from experiments import store
from experiments.models import Run
from experiments.states import State
from tests.service.factories import make_run
from tests.worker import processes
from tests.worker.scripted import NAMES, value


def queue(steps: int = 40, *, pool: str = "cpu", every: int = 10, seed: int = 1, **fields: Any) -> Run:
    """A run in the line, for a scripted or a real trainer."""
    spec = {
        "task": "classify",
        "seed": seed,
        "data": {"dataset": "digits"},
        "model": {"d_model": 32, "heads": 2, "ffn": 32, "layers": 2, "patch": 2},
        "optimizer": {"warmup_steps": 2},
        # Two micro-batches a step: slow enough to be killed in the middle of it on a fast machine.
        "train": {
            "steps": steps,
            "batch_size": 64,
            "accumulate": 2,
            "eval_every": 50,
            "checkpoint_every": every,
            "predictions": 1,
        },
        "record": {"probe_every": 50},
        "resources": {"threads": 1, "pool": pool},
    }
    return make_run(spec=spec, **fields)


def fresh(run: Run) -> Run:
    return Run.objects.get(pk=run.pk)


def ended(run: Run, within: float = 90.0) -> Run:
    """The run once it has ended and its worker has sealed what it recorded."""
    processes.wait_for(lambda: _settled(fresh(run)), within, f"run {run.pk} ends")
    return fresh(run)


def _settled(run: Run) -> bool:
    if run.state == State.SUCCEEDED:
        return not run.groups.filter(rows__gt=F("sealed")).exists()
    return run.ended


def reaches(run: Run, step: int, within: float = 90.0) -> Run:
    """The run once so many steps are committed."""
    processes.wait_for(lambda: fresh(run).committed_step >= step, within, f"run {run.pk} reaches step {step}")
    return fresh(run)


def story(run: Run) -> list[str]:
    """The states it went through."""
    return [event.to_state for event in run.events.order_by("id") if event.to_state]


def recorded(run: Run, *globs: str) -> dict[str, store.Series]:
    """Every stored point of every series, in stored order: a gap or a duplicate would show."""
    found = store.read([run.pk], globs or ["**"], max_points=10**6)
    assert all(series.exact for series in found)
    assert len({series.name for series in found}) == len(found)  # no series in two versions of its group
    return {series.name: series for series in found}


def assert_whole(run: Run, seed: int = 1) -> None:
    """A scripted run that succeeded has each value exactly once."""
    run = fresh(run)
    assert run.state == State.SUCCEEDED, (run.state, run.reason, run.detail)
    series = recorded(run)
    assert sorted(series) == sorted(NAMES)
    for column, name in enumerate(NAMES):
        assert series[name].steps.tolist() == list(range(run.steps))
        assert series[name].values.tolist() == [value(seed, step, column) for step in range(run.steps)]
