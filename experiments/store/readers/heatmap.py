"""A heat-map: series × columns of steps, reduced on the server to what a screen can show.

A cell needs one value of each bucket, so the pyramid is read at a coarser level than for curves, and of a level-1
bucket only the bytes of that value are read. A mean needs every point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.models import Group
from experiments.store.blocks import codec, packing
from experiments.store.blocks.buckets import FAN, build, milliseconds
from experiments.store.blocks.cover import BLOCK, PER_BLOCK, Piece, cover, level_for
from experiments.store.choice import Chosen, Thinned, choose

from .sealed import Sealed, fetch
from .series import Window, consistent_with, tails_of

Reduce = Literal["max", "last", "mean"]
_FIELDS = {"max": "high", "last": "last"}


@dataclass(frozen=True)
class Grid:
    """`values` float32 [series, columns]; `steps` int64 [columns] is each column's first step.

    A cell whose points are all non-finite, or that has none, is NaN.
    """

    names: list[str]
    steps: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Strip:
    """One group row reduced to cells of a level: first steps int64 [cells], values float32 [columns, cells],
    rows that each cell stands for int64 [cells]."""

    chosen: Chosen
    steps: NDArray[np.int64]
    values: NDArray[np.float32]
    rows: NDArray[np.int64]


def grid(run_id: int, globs: Sequence[str], *, columns: int = 400, reduce: Reduce = "max") -> Grid:
    """The matching series of one run that share the group of the first match, in columns of equal numbers of rows.

    Raises Thinned on a mean of series whose points a retention rule has dropped.
    """
    strips = consistent_with(lambda: choose([run_id], globs), lambda chosen: _strips(chosen, columns, reduce))
    names = list(dict.fromkeys(name for strip in strips for name in _names(strip.chosen)))
    if not strips:
        return Grid(names, np.empty(0, np.int64), np.empty((0, 0), np.float32))
    steps, values = _table(strips, names)
    starts = _starts(np.concatenate([strip.rows for strip in strips]), columns)
    if len(starts) < len(steps):
        steps, values = steps[starts], _REDUCERS[reduce](values, starts)
    return Grid(names, steps, np.where(np.isfinite(values), values, np.float32(np.nan)))


def _names(chosen: Chosen) -> list[str]:
    return [chosen.group.names[at] for at in chosen.columns]


def _strips(chosen: list[Chosen], columns: int, reduce: Reduce) -> list[Strip]:
    """Every version of the first match's group, in order of steps."""
    alike = [choice for choice in chosen if choice.group.name == chosen[0].group.name]
    tails = tails_of([choice.group for choice in alike], Window())
    rows = sum(choice.group.rows for choice in alike)
    # A few columns fewer than a screen has are better than reading sixteen times as much.
    level, floor = level_for(rows, max(columns * 3 // 4, 1)), max(choice.floor for choice in alike)
    if reduce == "mean":
        if floor:
            raise Thinned("a mean needs every point, and some of these series were thinned; ask for max or last")
        level = 0
    level = max(level, floor)
    return [_strip(choice, level, tails.get(choice.group.pk), reduce) for choice in alike]


def _strip(choice: Chosen, level: int, tail: codec.Table | None, reduce: Reduce) -> Strip:
    group = choice.group
    pieces = cover(0, group.sealed, group.sealed, level)
    sealed = fetch([group], choice.columns, pieces)
    cells = [_cells(sealed, group, piece, level, reduce) for piece in pieces]
    if tail is not None:
        cells.append(_built(tail.steps, tail.times, tail.values[list(choice.columns)], level, reduce))
    if not cells:
        return Strip(
            choice, np.empty(0, np.int64), np.empty((len(choice.columns), 0), np.float32), np.empty(0, np.int64)
        )
    steps, values, rows = zip(*cells, strict=True)
    return Strip(choice, np.concatenate(steps), np.concatenate(values, axis=1), np.concatenate(rows))


Cells = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def _cells(sealed: Sealed, group: Group, piece: Piece, level: int, reduce: Reduce) -> Cells:
    if piece.level == 0:
        return _built(*sealed.exact(group, piece), level, reduce)
    if piece.level == 1:
        rows = sealed.rows(piece)
        fine = packing.fine_values(sealed.summaries(piece), rows, _FIELDS[reduce])
        starts = np.arange(0, fine.shape[1], FAN ** (level - 1))
        steps = sealed.step_indexes([group], piece).all_of(0)[0][starts * FAN]
        values = fine if level == 1 else _REDUCERS[reduce](fine, starts)
        return steps, values, np.diff(np.append(starts * FAN, rows))
    coarse = packing.unpack_coarse(sealed.summaries(piece), PER_BLOCK)
    starts = np.arange(0, PER_BLOCK, FAN ** (level - piece.level))
    values = _REDUCERS[reduce](coarse[_FIELDS[reduce]], starts)
    span = BLOCK * FAN ** (piece.level - 1)
    return coarse["first_step"][0][starts], values, np.full(len(starts), span // len(starts))


def _built(
    steps: NDArray[np.int64], times: NDArray[np.float64], values: NDArray[np.float32], level: int, reduce: Reduce
) -> Cells:
    if level == 0:
        return steps, values, np.ones(len(steps), np.int64)
    buckets = build(values, steps, milliseconds(times), FAN**level)
    return buckets["first_step"][0], buckets[_FIELDS[reduce]], buckets["count"][0]


def _table(strips: list[Strip], names: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """All strips beside each other; NaN where a version lacks a name."""
    steps = np.concatenate([strip.steps for strip in strips])
    values = np.full((len(names), len(steps)), np.nan, np.float32)
    place, start = {name: row for row, name in enumerate(names)}, 0
    for strip in strips:
        rows = [place[name] for name in _names(strip.chosen)]
        values[rows, start : start + len(strip.steps)] = strip.values
        start += len(strip.steps)
    return steps, values


def _starts(rows: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Indices of the cells that begin a column: at most `columns`, of about equally many rows, none empty."""
    if len(rows) <= columns:
        return np.arange(len(rows))
    before = np.cumsum(rows) - rows
    wanted = np.arange(columns) * rows.sum() / columns
    return np.unique(np.searchsorted(before, wanted))


def _max(values: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    best = np.maximum.reduceat(np.where(np.isfinite(values), values, -np.inf), at, axis=1)
    best[np.isneginf(best)] = np.nan
    return best


def _mean(values: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    finite = np.isfinite(values)
    total = np.add.reduceat(np.where(finite, values, 0).astype(np.float64), at, axis=1)
    count = np.add.reduceat(finite.astype(np.int64), at, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _last(values: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    ends: NDArray[np.int64] = np.append(at[1:], values.shape[1]) - 1
    return values[:, ends]


_REDUCERS: dict[str, Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]] = {
    "max": _max,
    "mean": _mean,
    "last": _last,
}
