"""Fewer points, none invented: of each bucket the first, the minimum, the maximum and the last real point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def picks(values: NDArray[np.float32], max_points: int) -> NDArray[np.int64]:
    """Indices to keep of `values` [n], rising, at most max(max_points, 5) of them.

    Buckets hold equal numbers of points. Every bucket's finite minimum and maximum survive, and so does
    one non-finite point of each bucket that has one: a NaN stays visible.
    """
    n = len(values)
    if n <= max_points:
        return np.arange(n)
    finite = np.isfinite(values)
    odd = np.flatnonzero(~finite)
    buckets = max(max_points // (5 if len(odd) else 4), 1)
    edges = np.linspace(0, n, buckets + 1).astype(np.int64)
    starts, ends = edges[:-1], edges[1:]
    low = _arg_extreme(np.where(finite, values, np.inf), starts, ends)
    high = _arg_extreme(np.where(finite, -values, np.inf), starts, ends)
    if len(odd):
        _, firsts = np.unique(np.searchsorted(edges, odd, side="right"), return_index=True)
        odd = odd[firsts]
    return np.unique(np.concatenate([starts, low, high, ends - 1, odd]))


def _arg_extreme(values: NDArray[np.float32], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the smallest value in each of the contiguous ranges [start, end)."""
    least = np.minimum.reduceat(values, starts)
    hits = np.flatnonzero(values == np.repeat(least, ends - starts))
    at = np.searchsorted(hits, starts)
    return hits[np.minimum(at, len(hits) - 1)]
