"""Rows with defaults, made through the same verbs that the product uses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from django.contrib.auth import get_user_model

from experiments import lifecycle, store
from experiments.models import Experiment, Membership, Project, Role, Run, Worker
from experiments.submissions.submission import plan

_count = itertools.count()

SPEC: dict[str, Any] = {
    "task": "classify",
    "data": {"dataset": "digits"},
    "optimizer": {"warmup_steps": 2},
    "train": {"steps": 20, "batch_size": 8, "eval_every": 10, "checkpoint_every": 10},
    "resources": {"threads": 1},
}


def make_user(name: str = "", **fields: Any) -> Any:
    name = name or f"user{next(_count)}"
    return get_user_model().objects.create_user(name, password="correct horse", **fields)


def make_project(name: str = "", **members: Any) -> Project:
    """A project; members by role: `make_project(editor=user)`."""
    project = Project.objects.create(name=name or f"project{next(_count)}")
    for role, user in members.items():
        Membership.objects.create(project=project, user=user, role=Role(role))
    return project


def make_experiment(
    project: Project | None = None, user: Any = None, spec: Mapping[str, Any] | None = None, **fields: Any
) -> Experiment:
    submission = {"name": f"experiment {next(_count)}", "spec": dict(spec or SPEC), **fields}
    return lifecycle.submit(plan(submission), project=project or make_project(), user=user)


def make_run(project: Project | None = None, **fields: Any) -> Run:
    return make_experiment(project, **fields).runs.get()


def make_worker(name: str = "", pools: tuple[str, ...] = ("cpu",), slots: int = 1) -> Worker:
    return lifecycle.register_worker(name or f"worker{next(_count)}", "host", 1, list(pools), slots, "cpu", {})


def claim(run: Run | None = None, worker: Worker | None = None) -> lifecycle.Claim:
    """Claim the best run and bring it to running."""
    taken = lifecycle.claim([run.pool if run else "cpu"], worker or make_worker())
    assert taken is not None
    assert run is None or taken.held.run_id == run.pk
    lifecycle.start(taken.held, pid=1, device="cpu", info={})
    return taken


def frame(lo: int, hi: int, group: str = "train", names: tuple[str, ...] = ("loss/total", "lr")) -> store.Incoming:
    """Points of steps [lo, hi): column c at step s holds s + c / 10."""
    steps = np.arange(lo, hi)
    values = (steps[:, None] + np.arange(len(names)) / 10).astype(np.float32)
    return store.Incoming(group, list(names), steps, steps / 10.0, values)


def train(held: lifecycle.Held, lo: int, hi: int, *, every: int = 5) -> None:
    """Commit steps [lo, hi) in several flushes."""
    for start in range(lo, hi, every):
        end = min(start + every, hi)
        lifecycle.commit(held, start, end, [frame(start, end)])
