"""Exact history, piece by piece: every row of a group in order, in memory that does not grow with the run.

Each piece is read by short queries of its own, so a long export holds no transaction open. What was there at the
start is what comes out: rows that arrive later are left out, sealing meanwhile goes unnoticed, and a run that
was taken up again from a checkpoint meanwhile raises Changed rather than mixing two attempts.
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
_CLOCK = 7  # what a row's step and time, and what they are unpacked from, take, in values
_FRAMES = 1024  # unsealed frames read at once


class Changed(RuntimeError):
    """The run was taken back to a checkpoint while its history was being read."""


@dataclass(frozen=True)
class Rows:
    """Consecutive rows: `steps` int64 [rows], `times` float64 [rows] in seconds, `values` float32 [series, rows]. Where
    series were thinned, `present` bool [series, rows] tells which points there still are."""

    group: str
    names: list[str]
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    present: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Stretch:
    """Rows as they are stored, with those at which no series has a point any more."""

    block: codec.Block
    present: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class History:
    """What of a run is to be read. `groups` holds the names that each group's rows can have, in order."""

    run_id: int
    fence: int
    chosen: list[Chosen]

    @property
    def groups(self) -> dict[str, list[str]]:
        found: dict[str, dict[str, None]] = {}
        for one in self.chosen:
            found.setdefault(one.group.name, {}).update(dict.fromkeys(_names(one)))
        return {group: list(names) for group, names in found.items()}

    @property
    def thinned(self) -> dict[str, int]:
        """The coarsest level kept of each series that a retention rule has thinned."""
        floors = [
            (name, Chosen(one.group, (at,)).floor)
            for one in self.chosen
            for at, name in zip(one.columns, _names(one), strict=True)
        ]
        return {name: max(level for other, level in floors if other == name) for name, floor in floors if floor}

    def rows(self) -> Iterator[Rows]:
        """Every row, group after group. Raises Changed where the run went back meanwhile."""
        for group in self.groups:
            for one in self.chosen:
                if one.group.name == group:
                    yield from self._of(one)

    def _of(self, one: Chosen) -> Iterator[Rows]:
        left, after, limit = one.group.rows, -1, max(PIECE // (len(one.columns) + _CLOCK) // BLOCK, 1) * BLOCK
        while left:
            stretch = _next(one, after, min(left, limit))
            piece = stretch.block
            if not len(piece.steps) or _fence(self.run_id) != self.fence:
                raise Changed(f"run {self.run_id} went on from an earlier checkpoint while it was read; try again")
            yield _rows(one, stretch)
            left, after = left - len(piece.steps), int(piece.steps[-1])


def _rows(one: Chosen, stretch: Stretch) -> Rows:
    block, present = stretch.block, stretch.present
    if present is not None:
        some = present.any(axis=0)
        block = codec.Block(block.steps[some], block.times[some], block.values[:, some])
        present = present[:, some]
    times = np.rint(block.times * 1000) / 1000  # stored to the millisecond
    return Rows(one.group.name, _names(one), block.steps, times, block.values, present)


def history(run_id: int, globs: Sequence[str], group: str | None = None) -> History:
    """The run's history of the matching series as it stands now; reads no points yet."""
    fence = _fence(run_id)
    found = choose([run_id], globs)
    return History(run_id, fence, [one for one in found if group is None or one.group.name == group])


def _names(one: Chosen) -> list[str]:
    return [one.group.names[column] for column in one.columns]


def _fence(run_id: int) -> int:
    return Run.objects.values_list("fence", flat=True).get(pk=run_id)


def _next(one: Chosen, after: int, limit: int) -> Stretch:
    """The next rows past step `after`, at most `limit` and seldom fewer; none where there are none."""

    def again() -> list[Chosen]:
        found = list(Group.objects.defer("stats").filter(pk=one.group.pk))
        if any(group.thinned != one.group.thinned for group in found):
            raise Changed(f"run {one.group.run_id} was thinned while it was read; try again")
        return [Chosen(group, one.columns) for group in found]

    found = consistent_with(again, lambda chosen: [_piece(chosen[0], after, limit)])
    return found[0] if found else Stretch(codec.join([], len(one.columns)))


def _piece(one: Chosen, after: int, limit: int) -> Stretch:
    low = position(one.group, after + 1)
    if low == one.group.sealed:
        return Stretch(_from_frames(one, after, limit))
    high, whole = low + limit, (low + limit) // BLOCK * BLOCK
    if low < whole and high < one.group.sealed:
        high = whole  # a piece that ended inside of a block would have it inflated twice
    kept = [part for part in one.by_floor() if not part.floor]
    columns = kept[0].columns if kept else ()
    block = fetch([one.group], columns, cover(low, high, one.group.sealed, 0)).history(one.group)
    if columns == one.columns:
        return Stretch(block)
    values = np.full((len(one.columns), len(block.steps)), np.nan, np.float32)
    present = np.zeros(values.shape, bool)
    place = {column: at for at, column in enumerate(one.columns)}
    exact = [place[column] for column in columns]
    values[exact], present[exact] = block.values, True
    for part in one.by_floor():
        if part.floor:
            _scatter(part, low, high, block, [place[column] for column in part.columns], values, present)
    return Stretch(codec.Block(block.steps, block.times, values), present)


def _scatter(
    part: Chosen,
    low: int,
    high: int,
    block: codec.Block,
    places: list[int],
    values: NDArray[np.float32],
    present: NDArray[np.bool_],
) -> None:
    """Put the points that thinned series still have at rows [low, high) where they belong."""
    pieces = thinned_cover(low, high, part.group.sealed, part.floor, part.floor)
    sealed = fetch([part.group], part.columns, pieces)
    for piece in pieces:
        kept = sealed.own(piece)
        for row, place in enumerate(places):
            steps, _, found = points(kept, row)
            inside = (steps >= block.steps[0]) & (steps <= block.steps[-1])
            at = np.searchsorted(block.steps, steps[inside])
            values[place, at], present[place, at] = found[inside], True


def _from_frames(one: Chosen, after: int, limit: int) -> codec.Block:
    """Whole frames are inflated; their sizes are asked first, so that few are held at once."""
    sizes = Frame.objects.filter(group=one.group, last_step__gt=after).order_by("first_step")
    wanted, rows = [], 0
    for pk, size in sizes.values_list("pk", "rows")[:_FRAMES]:
        if rows and rows + size > limit:
            break
        wanted.append(pk)
        rows += size
    frames = Frame.objects.filter(pk__in=wanted).order_by("first_step").values_list("data", flat=True)
    blocks = [codec.decode(data) for data in frames]
    columns = list(one.columns)
    whole = codec.join([codec.Block(b.steps, b.times, b.values[columns]) for b in blocks], len(columns))
    low = int(np.searchsorted(whole.steps, after + 1))
    cut = slice(low, low + limit)
    return codec.Block(whole.steps[cut], whole.times[cut], whole.values[:, cut])
