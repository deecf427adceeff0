"""Buckets: what stands for many consecutive points of a series without losing a spike.

A bucket holds the first, the minimum, the maximum and the last real point, one non-finite point where there
is one, and how many points it stands for. Arrays of buckets have shape [series, buckets]; merging neighbours
keeps every field exact, so a coarser level never invents or forgets an extreme.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FAN = 16  # buckets of one level that make one of the next
NEVER = -1  # a step that no point has

BUCKET = np.dtype(
    [(f"{point}", "<f4") for point in ("first", "low", "high", "last", "odd")]
    + [(f"{point}_step", "<i8") for point in ("first", "low", "high", "last", "odd")]
    + [(f"{point}_time", "<f8") for point in ("first", "low", "high", "last", "odd")]
    + [("count", "<i8"), ("nonfinite", "<i8")]
)
POINTS = ("first", "low", "high", "last", "odd")
Buckets = NDArray[Any]  # of dtype BUCKET, [series, buckets]


def build(
    values: NDArray[np.float32], steps: NDArray[np.int64], times: NDArray[np.float64], size: int = FAN
) -> Buckets:
    """Buckets of `size` consecutive points each (the last may be smaller) from `values` [series, rows]."""
    series, rows = values.shape
    n = -(-rows // size)
    offset = np.arange(n) * size
    cube = _cube(values, n, size)
    finite = np.isfinite(cube)
    held = np.minimum(offset + size, rows) - offset
    out = np.zeros((series, n), BUCKET)
    out["count"] = held
    out["nonfinite"] = held - finite.sum(axis=2)
    low_at = np.where(finite, cube, np.inf).argmin(axis=2)
    high_at = np.where(finite, cube, -np.inf).argmax(axis=2)
    odd_at = (~finite).argmax(axis=2)  # padding is NaN too, but stands last and is masked below
    some: NDArray[np.bool_] = np.asarray(finite.any(axis=2))
    for point, at, real in (
        ("first", np.zeros_like(low_at), None),
        ("last", np.broadcast_to(held - 1, low_at.shape), None),
        ("low", low_at, some),
        ("high", high_at, some),
        ("odd", odd_at, out["nonfinite"] > 0),
    ):
        _place(out, point, cube, at, offset, steps, times, real)
    return out


def _cube(values: NDArray[np.float32], n: int, size: int) -> NDArray[np.float32]:
    """`values` as [series, n, size], padded with NaN."""
    series, rows = values.shape
    if rows == n * size:
        return values.reshape(series, n, size)
    cube = np.full((series, n * size), np.nan, np.float32)
    cube[:, :rows] = values
    return cube.reshape(series, n, size)


def _place(
    out: Buckets,
    point: str,
    cube: NDArray[np.float32],
    at: NDArray[np.intp],
    offset: NDArray[np.int64],
    steps: NDArray[np.int64],
    times: NDArray[np.float64],
    real: NDArray[np.bool_] | None,
) -> None:
    """Fill one point of every bucket from its place `at` [series, n]; where not `real`, NaN at no step."""
    value = np.take_along_axis(cube, at[:, :, None], axis=2)[:, :, 0]
    where = np.minimum(at + offset, len(steps) - 1)
    out[point] = value if real is None else np.where(real, value, np.nan)
    out[f"{point}_step"] = steps[where] if real is None else np.where(real, steps[where], NEVER)
    out[f"{point}_time"] = times[where]


def merge(buckets: Buckets, size: int) -> Buckets:
    """Every `size` neighbours become one (the last may be of fewer)."""
    series, n = buckets.shape
    if size <= 1:
        return buckets
    starts = np.arange(0, n, size)
    ends = np.minimum(starts + size, n) - 1
    out = np.empty((series, len(starts)), BUCKET)
    for field in ("first", "first_step", "first_time"):
        out[field] = buckets[field][:, starts]
    for field in ("last", "last_step", "last_time"):
        out[field] = buckets[field][:, ends]
    for field in ("count", "nonfinite"):
        out[field] = np.add.reduceat(buckets[field], starts, axis=1)
    _keep_best(out, buckets, "low", np.where(buckets["low_step"] == NEVER, np.inf, buckets["low"]), size)
    _keep_best(out, buckets, "high", np.where(buckets["high_step"] == NEVER, np.inf, -buckets["high"]), size)
    _keep_best(out, buckets, "odd", (buckets["odd_step"] == NEVER).astype(np.float32), size)
    return out


def _keep_best(out: Buckets, buckets: Buckets, point: str, rank: NDArray[Any], size: int) -> None:
    """Of each group of neighbours take over the point with the smallest rank; the earliest of equals."""
    series, n = buckets.shape
    padded = np.full((series, out.shape[1] * size), np.inf)
    padded[:, :n] = rank
    at = padded.reshape(series, out.shape[1], size).argmin(axis=2) + np.arange(out.shape[1]) * size
    for field in (point, f"{point}_step", f"{point}_time"):
        out[field] = np.take_along_axis(buckets[field], at, axis=1)


def points(
    row: NDArray[Any],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """The real points of one series' buckets [buckets]: steps rising, times, values; each once."""
    steps = np.concatenate([row[f"{point}_step"] for point in POINTS])
    steps, at = np.unique(steps, return_index=True)
    if len(steps) and steps[0] == NEVER:
        steps, at = steps[1:], at[1:]
    times = np.concatenate([row[f"{point}_time"] for point in POINTS])[at]
    values = np.concatenate([row[point] for point in POINTS])[at]
    return steps, times, values
