"""Reading series: many runs × many names in two queries, reduced to what a chart can show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from experiments.models import Frame, Group

from . import codec
from .downsample import picks
from .headline import Stats, finite_or_none


@dataclass(frozen=True)
class Series:
    """Points of one series of one run: `steps` int64, `times` float64 seconds, `values` float32, all [n].

    `count` and `nonfinite` are of the window that was asked for; `exact` says that nothing was left out.
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


@dataclass(frozen=True)
class Window:
    """Steps to read, both ends inclusive; None is open."""

    first: int | None = None
    last: int | None = None


@lru_cache(maxsize=1024)
def matcher(glob: str) -> re.Pattern[str]:
    """A glob over series names: `*` stops at a slash, `**` crosses it."""
    parts = re.split(r"(\*\*|\*)", glob)
    pattern = "".join({"**": ".*", "*": "[^/]*"}.get(part) or re.escape(part) for part in parts)
    return re.compile(pattern)


def matches(name: str, globs: Iterable[str]) -> bool:
    return any(matcher(glob).fullmatch(name) for glob in globs)


def read(
    run_ids: Sequence[int],
    globs: Sequence[str],
    *,
    max_points: int = 1000,
    from_step: int | None = None,
    to_step: int | None = None,
    since_step: int | None = None,
) -> list[Series]:
    """Series of the runs whose names match, ordered by run and by the run's own order of names.

    `from_step` and `to_step` are inclusive; `since_step` is exclusive: what came after it. At most
    `max_points` points each; every one is real, and each bucket's minimum and maximum are among them.
    """
    first = max(
        (step for step in (from_step, None if since_step is None else since_step + 1) if step is not None), default=None
    )
    parts = _collect(run_ids, globs, Window(first, to_step))
    return [_reduce(run, name, group, blocks, max_points) for (run, name), (group, blocks) in parts.items()]


Column = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]
Parts = dict[tuple[int, str], tuple[str, list[Column]]]


def _collect(run_ids: Sequence[int], globs: Sequence[str], window: Window) -> Parts:
    chosen = columns_of(run_ids, globs)
    parts: Parts = {
        (group.run_id, group.names[at]): (group.name, []) for group, columns in chosen.values() for at in columns
    }
    for group_id, block in blocks(list(chosen), window):
        group, columns = chosen[group_id]
        for at in columns:
            parts[group.run_id, group.names[at]][1].append((block.steps, block.times, block.values[at]))
    return parts


def columns_of(run_ids: Sequence[int], globs: Sequence[str]) -> dict[int, tuple[Group, list[int]]]:
    """Group rows that have matching names, in order of run, with the matching columns."""
    groups = Group.objects.filter(run_id__in=run_ids).defer("stats").order_by("run_id", "id")
    found = {}
    for group in groups:
        columns = [at for at, name in enumerate(group.names) if matches(name, globs)]
        if columns:
            found[group.pk] = (group, columns)
    return found


def blocks(group_ids: Sequence[int], window: Window) -> Iterator[tuple[int, codec.Block]]:
    """Decoded frames of the groups inside the window, by group and step; one query, streamed."""
    frames = Frame.objects.filter(group_id__in=group_ids)
    if window.first is not None:
        frames = frames.filter(last_step__gte=window.first)
    if window.last is not None:
        frames = frames.filter(first_step__lte=window.last)
    rows = frames.order_by("group_id", "first_step").values_list("group_id", "first_step", "last_step", "data")
    for group_id, first, last, data in rows.iterator(chunk_size=500):
        block = codec.decode(data)
        low = first if window.first is None else max(first, window.first)
        high = last if window.last is None else min(last, window.last)
        yield group_id, block if (low, high) == (first, last) else block.between(low, high)


def _reduce(run: int, name: str, group: str, columns: list[Column], max_points: int) -> Series:
    steps = np.concatenate([column[0] for column in columns]) if columns else np.empty(0, np.int64)
    times = np.concatenate([column[1] for column in columns]) if columns else np.empty(0, np.float64)
    values = np.concatenate([column[2] for column in columns]) if columns else np.empty(0, np.float32)
    nonfinite = int((~np.isfinite(values)).sum())
    keep = picks(values, max_points)
    return Series(
        run, name, group, len(values), nonfinite, len(keep) == len(values), steps[keep], times[keep], values[keep]
    )


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
