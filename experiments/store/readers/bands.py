"""Bands over runs: mean, spread and range of a series at steps that all runs recorded. No interpolation.

Of long series only every 16th, 256th … row is read, which the pyramid keeps exactly as the first point of a bucket.
Runs of one experiment record at the same steps; of runs with different strides, the shared steps are used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.store.blocks import codec, packing
from experiments.store.blocks.buckets import FAN
from experiments.store.blocks.cover import BLOCK, PER_BLOCK, Piece, cover, level_for
from experiments.store.choice import Chosen, choose

from .sealed import Sealed, fetch
from .series import Window, consistent_with, tails_of

AT_ONCE = 2**23  # values in memory


@dataclass(frozen=True)
class Band:
    """One series of one set of runs at `steps` int64 [n]; all else is float64 [n]. `count` is the number of runs with a
    finite value; `mean`, `low`, `high` are NaN without one, `std` (of a sample, n - 1) with fewer than two."""

    label: str | None
    name: str
    group: str
    steps: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]


@dataclass(frozen=True)
class Track:
    """Sampled rows of one run's group: `steps` int64 [m] rising, a float32 [m] for each name."""

    steps: NDArray[np.int64]
    values: dict[str, NDArray[np.float32]]


def bands(labels: Mapping[int, str | None], globs: Sequence[str], *, max_points: int = 1000) -> list[Band]:
    """A band for each series and label, over the runs with that label; at most `max_points` steps, the same for all
    labels.

    A step is used if every run that spans it has recorded it: a run that ended earlier counts up to its end.
    """
    bands_of: dict[tuple[str, str], list[Band]] = {}
    for group, names in _layout(labels, globs).items():
        for some in _slices(names, labels, max_points):
            for band in _bands(labels, group, some, max_points):
                bands_of.setdefault((band.group, band.name), []).append(band)
    return [band for same in bands_of.values() for band in same]


def _layout(labels: Mapping[int, str | None], globs: Sequence[str]) -> dict[str, list[str]]:
    """The names of each group that match in any run, in the runs' own order."""
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for choice in choose(list(labels), globs):
        names[choice.group.name].update(dict.fromkeys(choice.group.names[column] for column in choice.columns))
    return {group: list(matching) for group, matching in names.items()}


def _slices(names: list[str], labels: Mapping[int, str | None], max_points: int) -> Iterator[list[str]]:
    """Names in slices that fit into memory."""
    each = max(AT_ONCE // (len(labels) * max_points * FAN), 1)
    for low in range(0, len(names), each):
        yield names[low : low + each]


def _bands(labels: Mapping[int, str | None], group: str, names: list[str], max_points: int) -> Iterator[Band]:
    tracks = _tracks(list(labels), group, names, max_points)
    steps_of: dict[tuple[int, ...], NDArray[np.int64]] = {}
    for name in names:
        having = {run: track for run, track in tracks.items() if name in track.values}
        runs = tuple(having)
        if runs not in steps_of:
            steps_of[runs] = _thin(_shared([track.steps for track in having.values()]), max_points)
        yield from _by_label(labels, group, name, having, steps_of[runs])


def _by_label(
    labels: Mapping[int, str | None], group: str, name: str, tracks: dict[int, Track], steps: NDArray[np.int64]
) -> Iterator[Band]:
    """A band for each label of the runs that have the series."""
    values = {run: _at(steps, track.steps, track.values[name]) for run, track in tracks.items()}
    for label in dict.fromkeys(labels[run] for run in labels if run in tracks):
        rows = np.stack([values[run] for run in tracks if labels[run] == label])
        yield Band(label, name, group, steps, *_summary(rows))


def _shared(tracks: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The steps that are in every track that spans them."""
    tracks = [steps for steps in tracks if len(steps)]
    if not tracks or all(np.array_equal(steps, tracks[0]) for steps in tracks[1:]):
        return tracks[0] if tracks else np.empty(0, np.int64)
    steps, have = np.unique(np.concatenate(tracks), return_counts=True)
    begun = np.searchsorted(np.sort([track[0] for track in tracks]), steps, side="right")
    ended = np.searchsorted(np.sort([track[-1] for track in tracks]), steps, side="left")
    return np.asarray(steps[have == begun - ended])


def _thin(steps: NDArray[np.int64], max_points: int) -> NDArray[np.int64]:
    """Evenly spaced, including the first and the last."""
    if len(steps) <= max_points:
        return steps
    return np.asarray(steps[np.rint(np.linspace(0, len(steps) - 1, max_points)).astype(np.int64)])


def _at(wanted: NDArray[np.int64], steps: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The values at these steps; NaN if there is none."""
    place = np.minimum(np.searchsorted(steps, wanted), len(steps) - 1)
    return np.where(steps[place] == wanted, values[place], np.nan).astype(np.float64)


def _summary(rows: NDArray[np.float64]) -> tuple[Any, ...]:
    """Mean, std, low, high and count of the finite values of each column."""
    finite = np.isfinite(rows)
    count = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, rows, 0).sum(axis=0) / count
        std = np.sqrt(np.where(finite, (rows - mean) ** 2, 0).sum(axis=0) / (count - 1))
    std[count < 2] = np.nan
    low, high = np.where(finite, rows, np.inf).min(axis=0), np.where(finite, rows, -np.inf).max(axis=0)
    low[count == 0] = high[count == 0] = np.nan
    return mean, std, low, high, count


def _tracks(runs: list[int], group: str, names: list[str], max_points: int) -> dict[int, Track]:
    """The sampled rows of each run, joined from the versions of the group."""

    def narrowed_to_names() -> list[Chosen]:
        chosen = [choice for choice in choose(runs, ["**"]) if choice.group.name == group]
        narrowed = [
            Chosen(choice.group, tuple(at for at in choice.columns if choice.group.names[at] in names))
            for choice in chosen
        ]
        return [choice for choice in narrowed if choice.columns]

    tracks_of: dict[int, list[Track]] = defaultdict(list)
    for run, track in consistent_with(narrowed_to_names, lambda chosen: _sampled(chosen, max_points)):
        tracks_of[run].append(track)
    return {run: _joined(tracks) for run, tracks in tracks_of.items()}


def _narrowed(choice: Chosen, names: list[str]) -> Chosen:
    names_of = choice.group.names
    return Chosen(choice.group, tuple(column for column in choice.columns if names_of[column] in names))


def _joined(tracks: list[Track]) -> Track:
    if len(tracks) == 1:
        return tracks[0]
    names = dict.fromkeys(name for track in tracks for name in track.values)
    nothing = [np.full(len(track.steps), np.nan, np.float32) for track in tracks]
    return Track(
        np.concatenate([track.steps for track in tracks]),
        {name: np.concatenate([t.values.get(name, n) for t, n in zip(tracks, nothing, strict=True)]) for name in names},
    )


def _sampled(chosen: list[Chosen], max_points: int) -> list[tuple[int, Track]]:
    """Every group row at the level that the longest run needs; groups of equal columns and rows are read together."""
    # Half as many steps as were allowed are better than reading sixteen times as much.
    level = level_for(max(choice.group.rows for choice in chosen), max(max_points // 2, 1))
    level = max(level, *(choice.floor for choice in chosen))
    tails = tails_of([choice.group for choice in chosen], Window())
    alike: dict[tuple[Any, ...], list[Chosen]] = defaultdict(list)
    for choice in chosen:
        alike[choice.columns, choice.group.sealed].append(choice)
    tracks: dict[int, Track] = {}
    for choices in alike.values():
        tracks |= _read_together(choices, level, tails)
    return [(choice.run, tracks[choice.group.pk]) for choice in chosen]


def _read_together(choices: list[Chosen], level: int, tails: dict[int, codec.Table]) -> dict[int, Track]:
    columns, sealed_rows = choices[0].columns, choices[0].group.sealed
    pieces = cover(0, sealed_rows, sealed_rows, level)
    sealed = fetch([choice.group for choice in choices], columns, pieces)
    parts = [_piece(sealed, piece, level) for piece in pieces]
    tracks = {}
    for at, choice in enumerate(choices):
        own = [(steps[at], values[at * len(columns) : (at + 1) * len(columns)]) for steps, values in parts]
        if tail := tails.get(choice.group.pk):
            own.append(_tail(choice, tail, level))
        tracks[choice.group.pk] = _track(choice, own)
    return tracks


Samples = tuple[NDArray[np.int64], NDArray[np.float32]]  # steps [m], values [columns, m]


def _track(choice: Chosen, parts: list[Samples]) -> Track:
    steps = np.concatenate([steps for steps, _ in parts] or [np.empty(0, np.int64)])
    values = np.concatenate([values for _, values in parts] or [np.empty((len(choice.columns), 0), np.float32)], axis=1)
    steps, places = np.unique(steps, return_index=True)  # a piece's last row may also be its first
    return Track(steps, {choice.group.names[column]: values[at, places] for at, column in enumerate(choice.columns)})


def _piece(sealed: Sealed, piece: Piece, level: int) -> tuple[list[NDArray[np.int64]], NDArray[np.float32]]:
    """Steps of each group and values [owners, samples] of the rows that are multiples of 16^level, and of the last row
    of a finished group."""
    if piece.level == 0:
        exact = [sealed.exact(group, piece) for group in sealed.groups]
        return [steps for steps, _, _ in exact], np.concatenate([values for _, _, values in exact])
    if piece.level > 1:
        coarse = packing.unpack_coarse(sealed.summaries(piece), PER_BLOCK)
        at = _multiples(piece.number * BLOCK * FAN ** (piece.level - 1), PER_BLOCK, FAN**piece.level, level)
        width = len(sealed.columns)
        return [coarse["first_step"][row, at] for row in range(0, len(sealed.owners), width)], coarse["first"][:, at]
    rows, packed = sealed.rows(piece), sealed.summaries(piece)
    values = packing.fine_values(packed, rows, "first")
    at = _multiples(piece.number * BLOCK, values.shape[1], FAN, level)
    places, values = at * FAN, values[:, at]
    if piece == sealed.pieces[-1]:
        places = np.append(places, rows - 1)
        values = np.concatenate([values, packing.fine_values(packed, rows, "last")[:, -1:]], axis=1)
    steps, _ = sealed.step_indexes(sealed.groups, piece).at(np.arange(len(sealed.groups))[:, None], places[None])
    return list(steps), values


def _multiples(first: int, n: int, each: int, level: int) -> NDArray[np.int64]:
    """Which of `n` buckets of `each` rows, from row `first` on, begin at a multiple of 16^level."""
    return np.flatnonzero((first + np.arange(n) * each) % FAN**level == 0)


def _tail(choice: Chosen, tail: codec.Table, level: int) -> Samples:
    at = _multiples(choice.group.sealed, len(tail.steps), 1, level)
    at = np.union1d(at, [len(tail.steps) - 1]).astype(np.int64)
    return tail.steps[at], tail.values[list(choice.columns)][:, at]
