"""A heat-map: series × columns of steps, reduced on the server to what a screen can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.models import Group

from .read import Window, blocks, columns_of

Reduce = Literal["max", "last", "mean"]


@dataclass(frozen=True)
class Grid:
    """`values` float32 [series, columns]; `steps` int64 [columns] is each column's first step.

    A cell whose points are all non-finite, or that has none, is NaN.
    """

    names: list[str]
    steps: NDArray[np.int64]
    values: NDArray[np.float32]


def grid(run_id: int, globs: Sequence[str], *, columns: int = 400, reduce: Reduce = "max") -> Grid:
    """The matching series of one run that share the group of the first match, in columns of equal step spans."""
    chosen = columns_of([run_id], globs)
    if not chosen:
        return Grid([], np.empty(0, np.int64), np.empty((0, 0), np.float32))
    first = next(iter(chosen.values()))[0].name
    names = [group.names[at] for group, at_ in chosen.values() if group.name == first for at in at_]
    order = {name: row for row, name in enumerate(dict.fromkeys(names))}
    steps, parts = _read(chosen, first)
    if not len(steps):
        return Grid(list(order), steps, np.empty((len(order), 0), np.float32))
    edges = _edges(steps, columns)
    values = np.full((len(order), len(edges)), np.nan, np.float32)
    at = np.searchsorted(steps, edges)
    for name, rows in parts.items():
        values[order[name]] = _REDUCERS[reduce](rows, at)
    return Grid(list(order), edges, values)


def _read(
    chosen: dict[int, tuple[Group, list[int]]], group_name: str
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]:
    """All steps of the group in order, and each name's values at them (NaN where a version lacks the name)."""
    found = [
        (chosen[pk], block) for pk, block in blocks([p for p in chosen if chosen[p][0].name == group_name], Window())
    ]
    found.sort(key=lambda item: int(item[1].steps[0]))
    total = sum(len(block.steps) for _, block in found)
    parts: dict[str, NDArray[np.float32]] = {}
    start = 0
    for (group, columns), block in found:
        for at in columns:
            row = parts.setdefault(group.names[at], np.full(total, np.nan, np.float32))
            row[start : start + len(block.steps)] = block.values[at]
        start += len(block.steps)
    steps = np.concatenate([block.steps for _, block in found]) if found else np.empty(0, np.int64)
    return steps, parts


def _edges(steps: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """First steps of at most `columns` columns, none of them empty."""
    if len(steps) <= columns:
        return steps
    starts = np.linspace(0, len(steps), columns, endpoint=False).astype(np.int64)
    return steps[starts]


def _max(values: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    best = np.maximum.reduceat(np.where(np.isfinite(values), values, -np.inf), at)
    best[np.isneginf(best)] = np.nan
    return best


def _mean(values: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    finite = np.isfinite(values)
    total = np.add.reduceat(np.where(finite, values, 0).astype(np.float64), at)
    count = np.add.reduceat(finite.astype(np.int64), at)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _last(values: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    ends: NDArray[np.int64] = np.append(at[1:], len(values)) - 1
    return values[ends]


_REDUCERS: dict[str, Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]] = {
    "max": _max,
    "mean": _mean,
    "last": _last,
}
