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

from . import codec
from .choice import Chosen, choose
from .cover import BLOCK, cover
from .read import consistent_with
from .sealed import fetch, position

PIECE = 2**20  # values in memory at once, at least one block of each series
_FRAMES = 1024  # unsealed frames read at once


class Changed(RuntimeError):
    """The run was taken back to a checkpoint while its history was being read."""


@dataclass(frozen=True)
class Rows:
    """Consecutive rows: `steps` int64 [rows], `times` float64 [rows] in seconds, `values` float32 [series, rows]."""

    group: str
    names: list[str]
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]


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

    def rows(self) -> Iterator[Rows]:
        """Every row, group after group. Raises Changed where the run went back meanwhile."""
        for group in self.groups:
            for one in self.chosen:
                if one.group.name == group:
                    yield from self._of(one)

    def _of(self, one: Chosen) -> Iterator[Rows]:
        left, after, limit = one.group.rows, -1, max(PIECE // len(one.columns) // BLOCK, 1) * BLOCK
        while left:
            piece = _next(one, after, min(left, limit))
            if not len(piece.steps) or _fence(self.run_id) != self.fence:
                raise Changed(f"run {self.run_id} went on from an earlier checkpoint while it was read; try again")
            times = np.rint(piece.times * 1000) / 1000  # stored to the millisecond
            yield Rows(one.group.name, _names(one), piece.steps, times, piece.values)
            left, after = left - len(piece.steps), int(piece.steps[-1])


def history(run_id: int, globs: Sequence[str], group: str | None = None) -> History:
    """The run's history of the matching series as it stands now; reads no points yet."""
    fence = _fence(run_id)
    found = choose([run_id], globs)
    return History(run_id, fence, [one for one in found if group is None or one.group.name == group])


def _names(one: Chosen) -> list[str]:
    return [one.group.names[column] for column in one.columns]


def _fence(run_id: int) -> int:
    return Run.objects.values_list("fence", flat=True).get(pk=run_id)


def _next(one: Chosen, after: int, limit: int) -> codec.Block:
    """The next rows past step `after`, at most `limit` and seldom fewer; none where there are none."""

    def again() -> list[Chosen]:
        return [Chosen(group, one.columns) for group in Group.objects.defer("stats").filter(pk=one.group.pk)]

    found = consistent_with(again, lambda chosen: [_piece(chosen[0], after, limit)])
    return found[0] if found else codec.join([], len(one.columns))


def _piece(one: Chosen, after: int, limit: int) -> codec.Block:
    low = position(one.group, after + 1)
    if low == one.group.sealed:
        return _from_frames(one, after, limit)
    high, whole = low + limit, (low + limit) // BLOCK * BLOCK
    if low < whole and high < one.group.sealed:
        high = whole  # a piece that ended inside of a block would have it inflated twice
    pieces = cover(low, high, one.group.sealed, 0)
    sealed = fetch([one.group], one.columns, pieces)
    return sealed.history(one.group)


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
