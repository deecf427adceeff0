"""Finished runs with chosen finals, made through the verbs that workers use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments import lifecycle, store
from experiments.models import Experiment, Project, Run, Worker
from experiments.spec.revision import REVISION
from experiments.submissions.submission import plan
from experiments.verdicts.today import torch_here

from .factories import make_project, make_worker

Finals = Callable[[Run], Mapping[str, float]]
# The torch installed here; a server without one takes runs of any, so any will do.
INFO = {"revision": REVISION, "torch": torch_here() or "2.13", "device_kind": "cpu"}
ACCURACY = {"full": 0.99, "no_q": 0.992, "tied_qk": 0.55, "no_qk": 0.1, "const_q": 0.4, "uniform": 0.21}


def finals(steps: int, values: Mapping[str, float]) -> store.Incoming:
    """The group `test` as a trainer writes it: one row at the last step."""
    row = np.array([list(values.values())], np.float32)
    return store.Incoming("test", list(values), np.array([steps - 1]), np.array([1.0]), row)


def finish(run: Run, values: Mapping[str, float], worker: Worker, info: Mapping[str, Any] | None = None) -> None:
    """Claim it, commit all its steps at once with its finals, and succeed; `info` is what its trainer told."""
    taken = lifecycle.claim([run.pool], worker)
    assert taken is not None
    assert taken.held.run_id == run.pk
    lifecycle.start(taken.held, pid=1, device="cpu", info=dict(info or INFO))
    lifecycle.commit(taken.held, 0, run.steps, [finals(run.steps, values)])
    lifecycle.succeed(taken.held)


def submit(project: Project | None = None, **body: Any) -> Experiment:
    return lifecycle.submit(plan({"name": "a preset", **body}), project=project or make_project(), user=None)


def finished(values: Finals, project: Project | None = None, **body: Any) -> Experiment:
    """An experiment all of whose runs have succeeded with these finals."""
    experiment, worker = submit(project, **body), make_worker()
    for run in experiment.runs.order_by("pk"):
        finish(run, values(run), worker)
    return experiment


def accuracies(run: Run) -> dict[str, float]:
    """Pointer finals that differ a little between seeds."""
    variant = run.spec["model"]["attention"]["variant"]
    wobble = 0.002 * np.sin(run.seed * 2.3 + sum(map(ord, variant)))
    return {"test/accuracy": ACCURACY[variant] + wobble, "test/mode_guess": 0.21 + wobble / 2}


BOTH_HEADS = {
    "preset": "why-q",
    "matrix": {"model.attention.variant": list(ACCURACY), "model.heads": [1, 4]},
}
ONE_HEAD = {
    "preset": "why-q",
    "matrix": {"model.attention.variant": list(ACCURACY), "model.heads": [1]},
}
