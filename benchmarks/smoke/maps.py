"""Stored attention maps beside those that the CPU makes from the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.smoke.report import Line
from benchmarks.smoke.specs import spec
from experiments.spec import Spec
from workers.trainer.inspection.maps import write
from workers.trainer.tasks.registry import build_task

LIMIT = 1 / 255 + 1e-4  # of a head's largest weight: what a byte can hold
ROWS = 64 / 255 / 2  # half a step in each of at most 64 places


def stored_maps(device: str, names: tuple[str, ...], folder: Path) -> Iterator[Line]:
    for name in names:
        run = spec(name, device, model={"attention": {"init": "xavier"}})
        mine, cpu = (_weights(run, place, folder / f"{name}-{place}") for place in (device, "cpu"))
        worst = max(
            float((abs(mine[key] - truth) / truth.max((1, 2), keepdims=True)).max()) for key, truth in cpu.items()
        )
        sums = max(float(abs(each.sum(-1) - 1).max()) for each in mine.values())
        figure = f"{len(cpu)} maps, largest difference from the CPU's {worst:.1e} (limit {LIMIT:.1e})"
        yield Line(f"stored maps: {name}", f"{figure}; rows sum to 1 ± {sums:.1e}", worst <= LIMIT and sums < ROWS)


def _weights(run: Spec, device: str, folder: Path) -> dict[str, NDArray[np.float64]]:
    task = build_task(run, torch.device(device))
    with np.load(next(iter(write(task, run.task, 0, folder))).path) as file:
        sites = [key for key in file.files if not key.endswith("/scale")]
        return {key: file[key] * (file[f"{key}/scale"].astype(np.float64) / 255)[:, None, None] for key in sites}
