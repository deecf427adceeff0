"""Reading series: many runs × many names in a few queries, reduced to what a chart can show.

Sealed rows are read at the coarsest level that still gives enough buckets; unsealed rows follow as the tail, so a chart
shows the last flush.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from experiments.models import Frame, Group
from experiments.store.archive import blocks as archived_blocks
from experiments.store.blocks import codec
from experiments.store.blocks.blobs import fetch_rows
from experiments.store.blocks.buckets import FAN, Buckets, below, beside, build, merge, milliseconds, points
from experiments.store.blocks.cover import BLOCK, Piece, cover, level_for, thinned_cover
from experiments.store.choice import Chosen, choose

from .downsample import picks
from .sealed import Sealed, fetch, position

_TRIES = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """Points of one series of one run: `steps` int64, `times` float64 seconds, `values` float32, all [n].

    `count` and `nonfinite` are of the requested window; `exact`: no point was left out. If a retention rule has dropped
    points, `thinned` is the coarsest level kept in the window: of every 16^level points those of a bucket remain.
    `spacing` is that in steps, or None if steps are not evenly spaced.
    """

    run: int
    name: str
    group: str
    count: int
    nonfinite: int
    exact: bool
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]
    thinned: int = 0
    spacing: int | None = None


@dataclass(frozen=True)
class Window:
    """Steps to read, both ends inclusive; None is open."""

    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class GroupPart:
    """The rows of one group row, exact or as buckets, in order of steps. `thinned` is the coarsest level that is all
    that some columns have."""

    chosen: Chosen
    rows: int
    thinned: int
    exact: codec.Table | None
    buckets: Buckets | None


def read(
    run_ids: Sequence[int],
    globs: Sequence[str],
    *,
    max_points: int = 1000,
    from_step: int | None = None,
    to_step: int | None = None,
    since_step: int | None = None,
    chosen: list[Chosen] | None = None,
) -> list[Series]:
    """Series of the runs whose names match, ordered by run and by the run's own order of names.

    `from_step` and `to_step` are inclusive, `since_step` is exclusive. At most `max_points` points each (never fewer
    than five); all are real, and each bucket's minimum and maximum are among them. `chosen`, if given, is a result of
    `choose` for the same runs and globs, and spares a query.
    """
    lows = [step for step in (from_step, None if since_step is None else since_step + 1) if step is not None]
    window = Window(max(lows, default=None), to_step)
    parts = consistent_with(
        lambda: choose(run_ids, globs), lambda current: _parts(current, window, max_points), first=chosen
    )
    return _series(parts, max_points)


def consistent_with(
    find: Callable[[], list[Chosen]], take: Callable[[list[Chosen]], list[T]], first: list[Chosen] | None = None
) -> list[T]:
    """Find and take; again if sealing or truncation changed a revision meanwhile. `first` is a result of `find`."""
    for _ in range(_TRIES):
        chosen, first = find() if first is None else first, None
        if not chosen:
            return []
        try:
            taken = take(chosen)
        except KeyError:  # a block was moved meanwhile
            continue
        except archived_blocks.Unreadable:
            if _same(chosen):
                raise
            continue  # its object was removed by truncation or thinning meanwhile
        if _same(chosen):
            return taken
    raise RuntimeError("the series changed during every attempt to read them; try again")


def _same(chosen: list[Chosen]) -> bool:
    now = dict(Group.objects.filter(pk__in=[choice.group.pk for choice in chosen]).values_list("pk", "revision"))
    return now == {choice.group.pk: choice.group.revision for choice in chosen}


@dataclass(frozen=True)
class ReadPlan:
    """What to read of a group row; groups with equal plans are read together."""

    level: int
    pieces: tuple[Piece, ...]
    columns: tuple[int, ...]
    last_rows: int  # sealed rows if the final block is shorter, else 0
    thinned: int


def _parts(chosen: list[Chosen], window: Window, max_points: int) -> list[GroupPart]:
    tails = tails_of([choice.group for choice in chosen], window)
    split = [part for choice in chosen for part in choice.by_floor()]
    plans = [_plan(choice, tails.get(choice.group.pk), window, max_points) for choice in split]
    alike: dict[ReadPlan, list[int]] = defaultdict(list)
    for place, (plan, _) in enumerate(plans):
        alike[plan].append(place)
    parts: dict[int, GroupPart] = {}
    for plan, places in alike.items():
        stored = _read_together([split[place].group for place in places], plan, window)
        for place, (sealed, own) in zip(places, stored, strict=True):
            choice = split[place]
            parts[place] = _part(choice, plan, plans[place][1], sealed, own, tails.get(choice.group.pk))
    return [parts[place] for place in range(len(split))]


def _read_together(groups: list[Group], plan: ReadPlan, window: Window) -> list[tuple[Sealed | None, Buckets | None]]:
    """For each group of equal plans its sealed pieces, and its buckets unless the plan reads exact rows."""
    if not plan.pieces:
        return [(None, None)] * len(groups)
    sealed = fetch(groups, plan.columns, plan.pieces)
    if not plan.level:
        return [(sealed, None)] * len(groups)
    stacked = sealed.buckets(plan.level, _ends(window) if plan.thinned and window != Window() else None)
    width = len(plan.columns)
    return [(sealed, stacked.series(first, first + width)) for first in range(0, len(groups) * width, width)]


def _ends(window: Window) -> tuple[int, int]:
    return (0 if window.first is None else window.first), (2**63 - 1 if window.last is None else window.last)


def _plan(choice: Chosen, tail: codec.Table | None, window: Window, max_points: int) -> tuple[ReadPlan, int]:
    """The plan, and the number of rows in the window."""
    group = choice.group
    low = 0 if window.first is None else position(group, window.first)
    high = group.sealed if window.last is None else position(group, window.last + 1)
    rows = max(high - low, 0) + (len(tail.steps) if tail else 0)
    level = level_for(rows, max(max_points // 4, 1)) if rows > max_points else 0
    if not (floor := choice.floor):
        pieces, thinned = cover(low, high, group.sealed, level), 0
    else:
        thinned = max((piece.level for piece in thinned_cover(low, high, group.sealed, floor, floor)), default=0)
        level = max(level, thinned)
        pieces = thinned_cover(low, high, group.sealed, level, floor)
    return ReadPlan(level, tuple(pieces), choice.columns, group.sealed if group.sealed % BLOCK else 0, thinned), rows


def tails_of(groups: list[Group], window: Window) -> dict[int, codec.Table]:
    """Unsealed rows of each group inside the window. One query; none if all rows are sealed."""
    unsealed = [group.pk for group in groups if group.rows > group.sealed]
    if not unsealed:
        return {}
    frames = Frame.objects.filter(group_id__in=unsealed)
    if window.first is not None:
        frames = frames.filter(last_step__gte=window.first)
    if window.last is not None:
        frames = frames.filter(first_step__lte=window.last)
    blocks_of: dict[int, list[codec.Table]] = defaultdict(list)
    for group_id, data in fetch_rows(frames.order_by("group_id", "first_step").values_list("group_id", "data")):
        block = codec.decode(data)
        low = int(block.steps[0]) if window.first is None else window.first
        high = int(block.steps[-1]) if window.last is None else window.last
        blocks_of[group_id].append(block.between(low, high))
    return {group_id: codec.join(blocks) for group_id, blocks in blocks_of.items()}


def _part(
    choice: Chosen, plan: ReadPlan, rows: int, sealed: Sealed | None, own: Buckets | None, tail: codec.Table | None
) -> GroupPart:
    columns, level = list(choice.columns), plan.level
    tail = codec.Table(tail.steps, tail.times, tail.values[columns]) if tail and len(tail.steps) else None
    if level == 0:
        blocks = [sealed.history(choice.group)] if sealed else []
        exact = codec.join([*blocks, *([tail] if tail else [])], len(columns))
        return GroupPart(choice, len(exact.steps), 0, exact, None)
    pieces = [own] if own is not None else []
    if tail:
        pieces.append(build(tail.values, tail.steps, milliseconds(tail.times), FAN**level))
    return GroupPart(choice, rows, plan.thinned, None, beside(pieces))


def _series(parts: list[GroupPart], max_points: int) -> list[Series]:
    """One series for each run and name, joined from the versions of its group."""
    shrunk = _shrink(parts, max_points)
    versions_of: dict[tuple[int, str], list[Series]] = {key: [] for key in _keys(parts)}
    for part, buckets in zip(parts, shrunk, strict=True):
        group = part.chosen.group
        for at, column in enumerate(part.chosen.columns):
            series = _column(part, at, group, column, buckets, max_points)
            versions_of[part.chosen.run, series.name].append(series)
    return [_joined(versions) for versions in versions_of.values()]


def _keys(parts: list[GroupPart]) -> Iterator[tuple[int, str]]:
    """Runs and names in the runs' own order, which the parts of a thinned group do not keep."""
    for (run, group), some in groupby(parts, lambda part: (part.chosen.run, part.chosen.group)):
        for column in sorted(column for part in some for column in part.chosen.columns):
            yield run, group.names[column]


def _shrink(parts: list[GroupPart], max_points: int) -> list[Buckets | None]:
    """Merge neighbours until the points fit; parts of equal shape in one go."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for at, part in enumerate(parts):
        if part.buckets is not None:
            odd = bool(part.buckets["nonfinite"].any())
            limit = max(max_points // (5 if odd else 4), 1)
            alike[part.buckets.shape[1], -(-part.buckets.shape[1] // limit)].append(at)
    shrunk: list[Buckets | None] = [None] * len(parts)
    for (_, size), places in alike.items():
        merged = merge(below([_have(parts[at].buckets) for at in places]), size)
        ends = np.cumsum([len(parts[at].chosen.columns) for at in places])
        for at, end in zip(places, ends.tolist(), strict=True):
            shrunk[at] = merged.series(end - len(parts[at].chosen.columns), end)
    return shrunk


def _have(buckets: Buckets | None) -> Buckets:
    assert buckets is not None
    return buckets


def _column(part: GroupPart, at: int, group: Group, column: int, buckets: Buckets | None, max_points: int) -> Series:
    name = group.names[column]
    if buckets is not None:
        steps, times, values = points(buckets, at)
        nonfinite = int(buckets["nonfinite"][at].sum())
        spacing = group.stride * FAN**part.thinned or None if part.thinned else None
        return Series(
            part.chosen.run, name, group.name, part.rows, nonfinite, False, steps, times, values, part.thinned, spacing
        )
    assert part.exact is not None
    values = part.exact.values[at]
    keep = picks(values, max_points)
    nonfinite = int((~np.isfinite(values)).sum())
    whole = len(keep) == len(values)
    steps, times = part.exact.steps[keep], part.exact.times[keep]
    return Series(part.chosen.run, name, group.name, len(values), nonfinite, whole, steps, times, values[keep])


def _joined(versions: list[Series]) -> Series:
    if len(versions) == 1:
        return versions[0]
    first = versions[0]
    return Series(
        run=first.run,
        name=first.name,
        group=first.group,
        count=sum(version.count for version in versions),
        nonfinite=sum(version.nonfinite for version in versions),
        exact=all(version.exact for version in versions),
        steps=np.concatenate([version.steps for version in versions]),
        times=np.concatenate([version.times for version in versions]),
        values=np.concatenate([version.values for version in versions]),
        thinned=max(version.thinned for version in versions),
        spacing=_coarsest(versions),
    )


def _coarsest(versions: list[Series]) -> int | None:
    spacings = [version.spacing for version in versions if version.thinned]
    known = [spacing for spacing in spacings if spacing is not None]
    return max(known, default=None) if len(known) == len(spacings) else None
