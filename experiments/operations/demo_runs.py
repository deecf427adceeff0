"""Realistic finished runs, written fast through the real write path: for benchmarks, and to try the pages at scale.

Each series is a decaying, noisy curve with one known spike, 1,000 × its usual size at one step, to check that readers
keep it. Everything goes through `lifecycle` (submit, claim, commit, checkpoint, succeed, seal).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import lifecycle, store
from experiments.models import Project, Worker
from experiments.submissions.submission import plan

FLUSH_ROWS = 4096
SPIKE = 1000.0
_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
_VARIANTS = ("full", "no_q", "no_k", "no_v")
_RUNS_AT_ONCE = 500  # of one experiment


@dataclass
class Filled:
    """The runs made. `spikes` maps a run to the step of the spike in all its series."""

    project: str
    runs: list[int] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    steps: int = 0
    points: int = 0
    spikes: dict[int, int] = field(default_factory=dict)


def names_of(count: int) -> list[str]:
    """Series names as a run of that many series would have: losses first, then norms of sites, matrices and heads."""
    names = itertools.chain(["loss/total", "lr", "grad_norm/total"], _norms())
    return list(itertools.islice(names, count))


def _norms() -> Iterator[str]:
    for layer in itertools.count():
        for matrix in ("W_q", "W_k", "W_v"):
            whole = f"grad_norm/encoder.{layer}.self/{matrix}"
            yield whole
            yield from (f"{whole}/head.{head}" for head in range(4))


def fill(project: Project, *, runs: int, steps: int, series: int, seed: int = 0) -> Filled:
    """Make finished runs in the project."""
    made = Filled(project.name, series=names_of(series), steps=steps)
    random = np.random.default_rng(seed)
    # A pool of its own keeps real workers from claiming these runs.
    pool = f"fill.{seed}.{random.integers(2**31)}"
    worker = lifecycle.register_worker(pool, "fill", 1, [pool], 1, "none", {})
    try:
        for start in range(0, runs, _RUNS_AT_ONCE):
            _experiment(project, min(_RUNS_AT_ONCE, runs - start), steps, pool, f"filled {start // _RUNS_AT_ONCE}")
            while _finish_one(worker, pool, made, random):
                pass
    finally:
        Worker.objects.filter(pk=worker.pk).delete()
    return made


def _experiment(project: Project, runs: int, steps: int, pool: str, name: str) -> None:
    matrix: dict[str, list[Any]] = {"optimizer.lr": list(_RATES), "model.attention.variant": list(_VARIANTS)}
    cells = len(_RATES) * len(_VARIANTS)
    spec = {
        "task": "classify",
        "data": {"dataset": "digits"},
        "optimizer": {"warmup_steps": 0},
        "train": {"steps": steps},
        "resources": {"pool": pool},
    }
    whole, rest = divmod(runs, cells)
    parts: list[tuple[dict[str, list[Any]], int]] = [(matrix, whole), ({}, rest)]
    for wanted, seeds in parts:
        if seeds:
            body = {"name": name, "spec": spec, "matrix": wanted, "seeds": list(range(seeds)), "tags": ["filled"]}
            lifecycle.submit(plan(body), project=project, user=None)


def _finish_one(worker: Worker, pool: str, made: Filled, random: np.random.Generator) -> bool:
    claim = lifecycle.claim([pool], worker)
    if claim is None:
        return False
    held = claim.held
    lifecycle.start(held, pid=0, device="none", info={})
    spike = int(random.integers(0, made.steps))
    level = random.uniform(0.5, 2.0, len(made.series)).astype(np.float32)
    for low in range(0, made.steps, FLUSH_ROWS):
        high = min(low + FLUSH_ROWS, made.steps)
        values = _curve(level, low, high, random)
        if low <= spike < high:
            values[spike - low] = SPIKE * level
        steps = np.arange(low, high)
        lifecycle.commit(held, low, high, [store.Incoming("train", made.series, steps, steps / 20.0, values)])
        lifecycle.publish_checkpoint(held, step=high, path="", sha256="", size=0)
        lifecycle.seal(held)
    lifecycle.succeed(held)
    lifecycle.seal_finished(held.run_id)
    made.runs.append(held.run_id)
    made.spikes[held.run_id] = spike
    made.points += made.steps * len(made.series)
    return True


def _curve(level: NDArray[np.float32], low: int, high: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Values float32 [high - low, series]: an exponential fall to a floor, with multiplicative noise."""
    steps = np.arange(low, high, dtype=np.float32)
    fall = 0.2 + np.exp(-steps / 2000.0)
    noise = random.standard_normal((high - low, len(level)), dtype=np.float32)
    values: NDArray[np.float32] = level * fall[:, None] * (1 + np.float32(0.1) * noise)
    return values
