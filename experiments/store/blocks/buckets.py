"""Buckets: summaries of many consecutive points of a series that keep every spike.

A bucket holds the first, the minimum, the maximum and the last real point, one non-finite point if there is one, and
the count of its points. Merging neighbours keeps every field exact, so a coarser level never invents or loses an
extreme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAN = 16  # buckets of one level that make one of the next
NEVER = -1  # a step that no point has
POINTS = ("first", "low", "high", "last", "odd")
# Field and kind, in the order in which blocks of level 2 and higher store them.
FIELDS = {
    **dict.fromkeys(POINTS, "<f4"),
    **{f"{point}_step": "<i8" for point in POINTS},
    **{f"{point}_ms": "<i8" for point in POINTS},
    "count": "<i8",
    "nonfinite": "<i8",
}


class Buckets(dict[str, NDArray]):  # type: ignore[type-arg]  # each field has its own kind
    """One array [series, buckets] per field. Values are float32; steps and times (milliseconds since the run started)
    int64; `low` and `high` are NaN at step NEVER if no point is finite, `odd` if all are."""

    @property
    def shape(self) -> tuple[int, int]:
        series, n = self["first"].shape
        return series, n

    def series(self, low: int, high: int) -> Buckets:
        """The rows [low, high)."""
        return Buckets((name, column[low:high]) for name, column in self.items())


def milliseconds(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Seconds in whole milliseconds, as stored."""
    return np.rint(times * 1000).astype(np.int64)


def beside(parts: Sequence[Buckets]) -> Buckets:
    """The same series, later buckets after earlier ones."""
    return _joined(parts, 1)


def below(parts: Sequence[Buckets]) -> Buckets:
    """More series of equally many buckets."""
    return _joined(parts, 0)


def _joined(parts: Sequence[Buckets], axis: int) -> Buckets:
    if len(parts) == 1:
        return parts[0]
    return Buckets((name, np.concatenate([part[name] for part in parts], axis=axis)) for name in FIELDS)


def build(values: NDArray[np.float32], steps: NDArray[np.int64], millis: NDArray[np.int64], size: int) -> Buckets:
    """Buckets of `size` consecutive points each (the last may be smaller) from `values` [series, rows]."""
    series, rows = values.shape
    n = -(-rows // size)
    offset = np.arange(n) * size
    held = np.minimum(offset + size, rows) - offset
    cube = _cube(values, n, size)
    finite = np.isfinite(cube)
    count = np.broadcast_to(held, (series, n))
    nonfinite = held - finite.sum(axis=2)
    out = Buckets(count=count, nonfinite=nonfinite)
    some: NDArray[np.bool_] = np.asarray(finite.any(axis=2))
    places = {
        "first": (np.zeros((series, n), np.intp), None),
        "last": (np.broadcast_to(held - 1, (series, n)), None),
        "low": (np.where(finite, cube, np.inf).argmin(axis=2), some),
        "high": (np.where(finite, cube, -np.inf).argmax(axis=2), some),
        "odd": ((~finite).argmax(axis=2), nonfinite > 0),  # padding is NaN too, but comes last
    }
    for point, (at, real) in places.items():
        value = np.take_along_axis(cube, at[:, :, None], axis=2)[:, :, 0]
        where = np.minimum(at + offset, rows - 1)
        out[point] = value if real is None else np.where(real, value, np.float32(np.nan))
        out[f"{point}_step"] = steps[where] if real is None else np.where(real, steps[where], NEVER)
        out[f"{point}_ms"] = millis[where]
    return out


def _cube(values: NDArray[np.float32], n: int, size: int) -> NDArray[np.float32]:
    """`values` as [series, n, size], padded with NaN."""
    series, rows = values.shape
    if rows == n * size:
        return values.reshape(series, n, size)
    cube = np.full((series, n * size), np.nan, np.float32)
    cube[:, :rows] = values
    return cube.reshape(series, n, size)


def merge(buckets: Buckets, size: int) -> Buckets:
    """Every `size` neighbours become one (the last may be of fewer)."""
    if size <= 1:
        return buckets
    n = buckets.shape[1]
    starts = np.arange(0, n, size)
    ends = np.minimum(starts + size, n) - 1
    out = Buckets()
    for suffix in ("", "_step", "_ms"):
        out[f"first{suffix}"] = buckets[f"first{suffix}"][:, starts]
        out[f"last{suffix}"] = buckets[f"last{suffix}"][:, ends]
    for field in ("count", "nonfinite"):
        out[field] = np.add.reduceat(buckets[field], starts, axis=1)
    with np.errstate(invalid="ignore"):
        _keep_best(out, buckets, "low", buckets["low"], size)
        _keep_best(out, buckets, "high", -buckets["high"], size)
    if buckets["nonfinite"].any():
        _keep_best(out, buckets, "odd", np.where(buckets["odd_step"] == NEVER, np.inf, 0), size)
    else:
        for suffix in ("", "_step", "_ms"):
            out[f"odd{suffix}"] = buckets[f"odd{suffix}"][:, starts]
    return out


def _keep_best(out: Buckets, buckets: Buckets, point: str, rank: NDArray[np.float32], size: int) -> None:
    """Of each group of neighbours keep the point with the smallest rank; NaN ranks last."""
    series, n = rank.shape
    groups = -(-n // size)
    padded = np.full((series, groups * size), np.inf, np.float32)
    np.copyto(padded[:, :n], rank, where=~np.isnan(rank))
    at = padded.reshape(series, groups, size).argmin(axis=2)
    at += np.arange(0, groups * size, size)
    for suffix in ("", "_step", "_ms"):
        out[f"{point}{suffix}"] = np.take_along_axis(buckets[f"{point}{suffix}"], at, axis=1)


def clip(buckets: Buckets, first: int, last: int) -> Buckets:
    """Drop points outside of steps [first, last]; buckets keep their places. An empty bucket gets the first point of
    the next bucket and the last of the one before, so that both ends survive."""
    values, steps, millis = (
        np.stack([buckets[f"{point}{suffix}"] for point in POINTS]) for suffix in ("", "_step", "_ms")
    )
    real = (steps >= first) & (steps <= last) & (steps != NEVER)
    finite, odd = real & np.isfinite(values), real & ~np.isfinite(values)
    far = np.iinfo(np.int64).max
    chosen = {
        "first": (np.where(real, steps, far).argmin(axis=0), real),
        "last": (np.where(real, steps, NEVER).argmax(axis=0), real),
        "low": (np.where(finite, values, np.inf).argmin(axis=0), finite),
        "high": (np.where(finite, values, -np.inf).argmax(axis=0), finite),
        "odd": (np.where(odd, steps, far).argmin(axis=0), odd),
    }
    out = Buckets(count=buckets["count"], nonfinite=np.where(odd.any(axis=0), buckets["nonfinite"], 0))
    for point, (which, have) in chosen.items():
        some = have.any(axis=0)
        out[point] = np.where(some, _take(values, which), np.float32(np.nan))
        out[f"{point}_step"] = np.where(some, _take(steps, which), NEVER)
        out[f"{point}_ms"] = _take(millis, which)
    _fill(out, "first", -1)
    _fill(out, "last", 1)
    return out


def _take(stacked: NDArray[Any], which: NDArray[np.int64]) -> NDArray[Any]:
    taken: NDArray[Any] = np.take_along_axis(stacked, which[None], axis=0)[0]
    return taken


def _fill(out: Buckets, point: str, way: int) -> None:
    """If a bucket has no such point, take the nearest before it (`way` 1) or after it (-1)."""
    have = (out[f"{point}_step"] != NEVER)[:, ::way]
    at = np.maximum.accumulate(np.where(have, np.arange(have.shape[1]), 0), axis=1)
    for suffix in ("", "_step", "_ms"):
        out[f"{point}{suffix}"] = np.take_along_axis(out[f"{point}{suffix}"][:, ::way], at, axis=1)[:, ::way]


def points(buckets: Buckets, row: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """The real points of one series: steps rising, times in seconds, values; each once."""
    wanted = POINTS if buckets["nonfinite"][row].any() else POINTS[:4]
    steps = np.stack([buckets[f"{point}_step"][row] for point in wanted], axis=1).ravel()
    order = np.argsort(steps, kind="stable")
    ordered = steps[order]
    new = np.empty(len(steps), bool)
    new[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    keep = order[new & (ordered != NEVER)]
    times = np.stack([buckets[f"{point}_ms"][row] for point in wanted], axis=1).ravel()[keep] / 1000.0
    values = np.stack([buckets[point][row] for point in wanted], axis=1).ravel()[keep]
    return steps[keep], times, values
