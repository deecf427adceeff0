"""Running headline values of every series of a group, one small blob per group.

Min and max are over finite values. The state is stored with each checkpoint, so that truncation to a checkpoint
restores it without reading any history.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FIELDS = ("last", "low", "high", "last_step", "low_step", "high_step", "count", "nonfinite")


@dataclass(frozen=True)
class HeadlineValues:
    """Headline values of one series; finite or None."""

    last: float | None
    min: float | None
    max: float | None
    last_step: int | None
    min_step: int | None
    max_step: int | None
    count: int
    nonfinite: int


@dataclass
class Stats:
    """Column-wise state, each array [series]. `low` and `high` are NaN while no finite value was seen; `last` is the
    newest value as recorded, finite or not."""

    last: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    last_step: NDArray[np.int64]
    low_step: NDArray[np.int64]
    high_step: NDArray[np.int64]
    count: NDArray[np.int64]
    nonfinite: NDArray[np.int64]

    @classmethod
    def empty(cls, series: int) -> Stats:
        values = [np.full(series, np.nan, np.float32) for _ in range(3)]
        counts = [np.full(series, -1, np.int64) for _ in range(3)] + [np.zeros(series, np.int64) for _ in range(2)]
        return cls(*values, *counts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, data: bytes | memoryview, series: int) -> Stats:
        """Inverse of `dump`; empty bytes are the empty state."""
        if not data:
            return cls.empty(series)
        table = np.load(io.BytesIO(bytes(data)), allow_pickle=False)
        return cls(*(np.ascontiguousarray(table[name]) for name in _FIELDS))

    def dump(self) -> bytes:
        columns = [getattr(self, name) for name in _FIELDS]
        kinds = [(name, column.dtype) for name, column in zip(_FIELDS, columns, strict=True)]
        table = np.empty(len(self.last), dtype=kinds)
        for name, column in zip(_FIELDS, columns, strict=True):
            table[name] = column
        out = io.BytesIO()
        np.save(out, table, allow_pickle=False)
        return out.getvalue()

    def headline(self, column: int) -> HeadlineValues:
        last, low, high = (finite_or_none(values[column]) for values in (self.last, self.low, self.high))
        steps = [int(steps[column]) for steps in (self.last_step, self.low_step, self.high_step)]
        last_step, low_step, high_step = (step if step >= 0 else None for step in steps)
        counts = int(self.count[column]), int(self.nonfinite[column])
        return HeadlineValues(last, low, high, last_step, low_step, high_step, *counts)

    def add(self, steps: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add `values` [series, rows] recorded at `steps` [rows]."""
        finite = np.isfinite(values)
        low_at = np.where(finite, values, np.inf).argmin(axis=1)
        high_at = np.where(finite, values, -np.inf).argmax(axis=1)
        rows = np.arange(len(values))
        low, high, some = values[rows, low_at], values[rows, high_at], finite.any(axis=1)
        # `not (kept <= new)` is also true where nothing was kept yet (NaN).
        lower = some & ~(self.low <= low)
        higher = some & ~(self.high >= high)
        self.low[lower], self.low_step[lower] = low[lower], steps[low_at][lower]
        self.high[higher], self.high_step[higher] = high[higher], steps[high_at][higher]
        self.last[:] = values[:, -1]
        self.last_step[:] = steps[-1]
        self.count += values.shape[1]
        self.nonfinite += (~finite).sum(axis=1)


def finite_or_none(value: float) -> float | None:
    """What a database column and JSON can hold."""
    return float(value) if np.isfinite(value) else None
