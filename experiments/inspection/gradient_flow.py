"""The gradient chain of a run: its stations from the loss to W_q at every site, over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import store
from experiments.spec.sections.attention_names import STATIONS

FINALS = {
    "fp32": "test/chain_error/fp32",
    "fp32_of_bound": "test/chain_error/fp32_of_bound",
    "fp64": "test/chain_error/fp64_probes",
    "from_loss_fp64": "test/chain_error/from_loss_fp64",
    "fp64_last": "test/chain_error/fp64",  # of runs that were recorded before every probe counted
}
OLD = "fp64_last"


@dataclass(frozen=True)
class Ladder:
    """One site: norms float32 [stations, columns] and the relative error of the analytic end [columns]."""

    site: str
    stations: list[str]
    values: list[NDArray[np.float32]]
    error: NDArray[np.float32] | None


def flow(run_id: int, columns: int) -> tuple[NDArray[np.int64], list[Ladder], dict[str, float | None]]:
    """Steps [columns], a ladder for each site, and the largest errors by kind; a column holds its last value."""
    grid = store.grid(run_id, ["flow/*/*", "chain_error/*"], columns=columns, reduce="last")
    rows = {name: np.ascontiguousarray(row) for name, row in zip(grid.names, grid.values, strict=True)}
    sites = list(dict.fromkeys(name.split("/")[1] for name in rows if name.startswith("flow/")))
    last = store.last_values([run_id], FINALS.values()).get(run_id, {})
    errors = {key: last.get(name) for key, name in FINALS.items() if key != OLD or name in last}
    return grid.steps, [_ladder(site, rows) for site in sites], errors


def _ladder(site: str, rows: dict[str, Any]) -> Ladder:
    names = [name.rpartition("/")[2] for name in rows if name.startswith(f"flow/{site}/")]
    stations = [*(known for known in STATIONS if known in names), *(name for name in names if name not in STATIONS)]
    return Ladder(site, stations, [rows[f"flow/{site}/{each}"] for each in stations], rows.get(f"chain_error/{site}"))
