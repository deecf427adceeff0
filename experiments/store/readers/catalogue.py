"""What series a run has: names, places and headline values, without any history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.models import Group
from experiments.store.headline import Stats, finite_or_none


@dataclass(frozen=True)
class SeriesInfo:
    """A series' place and headline values; finite or None."""

    name: str
    group: str
    last: float | None
    min: float | None
    max: float | None
    last_step: int | None
    min_step: int | None
    max_step: int | None
    count: int
    nonfinite: int


def catalogue(run_id: int) -> list[SeriesInfo]:
    """Every series of a run with its headline values; reads no history."""
    newest: dict[str, SeriesInfo] = {}
    for group in Group.objects.filter(run_id=run_id).order_by("id"):
        stats = Stats.load(group.stats, len(group.names))
        newest.update((name, _info(name, group.name, stats, at)) for at, name in enumerate(group.names))
    return list(newest.values())


def _info(name: str, group: str, stats: Stats, at: int) -> SeriesInfo:
    def step(column: NDArray[np.int64]) -> int | None:
        return int(column[at]) if column[at] >= 0 else None

    return SeriesInfo(
        name=name,
        group=group,
        last=finite_or_none(stats.last[at]),
        min=finite_or_none(stats.low[at]),
        max=finite_or_none(stats.high[at]),
        last_step=step(stats.last_step),
        min_step=step(stats.low_step),
        max_step=step(stats.high_step),
        count=int(stats.count[at]),
        nonfinite=int(stats.nonfinite[at]),
    )
