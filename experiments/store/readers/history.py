"""Exact history: every row of a group in order, in pieces, so that memory does not grow with the run.

Each piece is read by short queries, so a long export holds no transaction open. The result is the history at the start:
later rows are left out, sealing makes no difference, and a run that resumed from a checkpoint meanwhile raises Changed,
so that two attempts are never mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.models import Frame, Group, Run
from experiments.store.blocks import codec
from experiments.store.blocks.buckets import points
from experiments.store.blocks.cover import BLOCK, cover, thinned_cover
from experiments.store.choice import Chosen, choose

from .sealed import fetch, position
from .series import consistent_with

PIECE = 2**20  # values in memory at once, at least one block of each series
_CLOCK = 7  # memory of a row's step and time, in values
_FRAMES = 1024  # unsealed frames read at once


class Changed(RuntimeError):
    """The run changed while its history was read."""


@dataclass(frozen=True)
class Rows:
    """Consecutive rows: `steps` int64 [rows], `times` float64 [rows] in seconds, `values` float32 [series, rows]. If
    series were thinned, `present` bool [series, rows] says which points are left."""

    group: str
    names: list[str]
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    present: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Stretch:
    """Rows as stored, including those at which no series has a point left."""

    block: codec.Table
    present: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class History:
    """The part of a run to read. `groups`: the names of each group's series, in order."""

    run_id: int
    fence: int
    chosen: list[Chosen]

    @property
    def groups(self) -> dict[str, list[str]]:
        names_of: dict[str, dict[str, None]] = {}
        for choice in self.chosen:
            names_of.setdefault(choice.group.name, {}).update(dict.fromkeys(_names(choice)))
        return {group: list(names) for group, names in names_of.items()}

    @property
    def thinned(self) -> dict[str, int]:
        """The coarsest level kept of each series that a retention rule has thinned."""
        floors = [
            (name, Chosen(choice.group, (at,)).floor)
            for choice in self.chosen
            for at, name in zip(choice.columns, _names(choice), strict=True)
        ]
        return {name: max(level for other, level in floors if other == name) for name, floor in floors if floor}

    def rows(self) -> Iterator[Rows]:
        """Every row, group after group. Raises Changed if the run resumed from a checkpoint meanwhile."""
        for group in self.groups:
            for choice in self.chosen:
                if choice.group.name == group:
                    yield from self._of(choice)

    def _of(self, choice: Chosen) -> Iterator[Rows]:
        left, after, limit = choice.group.rows, -1, max(PIECE // (len(choice.columns) + _CLOCK) // BLOCK, 1) * BLOCK
        while left:
            stretch = _next(choice, after, min(left, limit))
            piece = stretch.block
            if not len(piece.steps) or _fence(self.run_id) != self.fence:
                raise Changed(f"run {self.run_id} resumed from an earlier checkpoint while it was read; try again")
            yield _rows(choice, stretch)
            left, after = left - len(piece.steps), int(piece.steps[-1])


def _rows(choice: Chosen, stretch: Stretch) -> Rows:
    block, present = stretch.block, stretch.present
    if present is not None:
        some = present.any(axis=0)
        block = codec.Table(block.steps[some], block.times[some], block.values[:, some])
        present = present[:, some]
    times = np.rint(block.times * 1000) / 1000  # stored to the millisecond
    return Rows(choice.group.name, _names(choice), block.steps, times, block.values, present)


def history(run_id: int, globs: Sequence[str], group: str | None = None) -> History:
    """The current history of the matching series; reads no points yet."""
    fence = _fence(run_id)
    chosen = choose([run_id], globs)
    return History(run_id, fence, [choice for choice in chosen if group is None or choice.group.name == group])


def _names(choice: Chosen) -> list[str]:
    return [choice.group.names[column] for column in choice.columns]


def _fence(run_id: int) -> int:
    return Run.objects.values_list("fence", flat=True).get(pk=run_id)


def _next(choice: Chosen, after: int, limit: int) -> Stretch:
    """The next rows after step `after`, at most `limit`."""

    def again() -> list[Chosen]:
        groups = list(Group.objects.defer("stats").filter(pk=choice.group.pk))
        if any(group.thinned != choice.group.thinned for group in groups):
            raise Changed(f"run {choice.group.run_id} was thinned while it was read; try again")
        return [Chosen(group, choice.columns) for group in groups]

    pieces = consistent_with(again, lambda chosen: [_piece(chosen[0], after, limit)])
    return pieces[0] if pieces else Stretch(codec.join([], len(choice.columns)))


def _piece(choice: Chosen, after: int, limit: int) -> Stretch:
    low, sealed = position(choice.group, after + 1), choice.group.sealed
    if low == sealed:
        return Stretch(_from_frames(choice, after, limit))
    high = _end(low, limit, sealed)
    kept = [part for part in choice.by_floor() if not part.floor]
    columns = kept[0].columns if kept else ()
    block = fetch([choice.group], columns, cover(low, high, sealed, 0)).history(choice.group)
    return Stretch(block) if columns == choice.columns else _with_thinned(choice, columns, block, low, high)


def _end(low: int, limit: int, sealed: int) -> int:
    """The row at which to stop: a block's end if possible, since a block read in two pieces is inflated twice."""
    high, whole = low + limit, (low + limit) // BLOCK * BLOCK
    return whole if low < whole and high < sealed else high


def _with_thinned(choice: Chosen, columns: tuple[int, ...], block: codec.Table, low: int, high: int) -> Stretch:
    """The exact rows of `columns`, and of all other columns the points that thinning has kept."""
    values = np.full((len(choice.columns), len(block.steps)), np.nan, np.float32)
    present = np.zeros(values.shape, bool)
    place = {column: at for at, column in enumerate(choice.columns)}
    exact = [place[column] for column in columns]
    values[exact], present[exact] = block.values, True
    for part in choice.by_floor():
        if part.floor:
            _scatter(part, low, high, block, [place[column] for column in part.columns], values, present)
    return Stretch(codec.Table(block.steps, block.times, values), present)


def _scatter(
    part: Chosen,
    low: int,
    high: int,
    block: codec.Table,
    places: list[int],
    values: NDArray[np.float32],
    present: NDArray[np.bool_],
) -> None:
    """Write the points that thinned series have left at rows [low, high) into `values` and `present`."""
    pieces = thinned_cover(low, high, part.group.sealed, part.floor, part.floor)
    sealed = fetch([part.group], part.columns, pieces)
    for piece in pieces:
        kept = sealed.own(piece)
        for row, place in enumerate(places):
            steps, _, kept_values = points(kept, row)
            inside = (steps >= block.steps[0]) & (steps <= block.steps[-1])
            at = np.searchsorted(block.steps, steps[inside])
            values[place, at], present[place, at] = kept_values[inside], True


def _from_frames(choice: Chosen, after: int, limit: int) -> codec.Table:
    """Whole frames are inflated; their sizes are asked first, so that few are held at once."""
    sizes = Frame.objects.filter(group=choice.group, last_step__gt=after).order_by("first_step")
    wanted, rows = [], 0
    for pk, size in sizes.values_list("pk", "rows")[:_FRAMES]:
        if rows and rows + size > limit:
            break
        wanted.append(pk)
        rows += size
    frames = Frame.objects.filter(pk__in=wanted).order_by("first_step").values_list("data", flat=True)
    blocks = [codec.decode(data) for data in frames]
    columns = list(choice.columns)
    whole = codec.join([codec.Table(b.steps, b.times, b.values[columns]) for b in blocks], len(columns))
    low = int(np.searchsorted(whole.steps, after + 1))
    cut = slice(low, low + limit)
    return codec.Table(whole.steps[cut], whole.times[cut], whole.values[:, cut])
