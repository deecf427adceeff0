"""When a series first falls below a value: a measure that still differs between nets after all have learned."""

from __future__ import annotations

from collections.abc import Sequence

from .series import read

_EVERY_POINT = 10_000_000


def first_below(run_ids: Sequence[int], name: str, bound: float) -> dict[int, int | None]:
    """By run, the first step at which the series is below `bound`; None if it never is.

    Runs without the series, and runs with thinned points, are left out.
    """
    crossings: dict[int, int | None] = {}
    for series in read(run_ids, [name], max_points=_EVERY_POINT):
        if series.exact and not series.thinned:
            reached = series.steps[series.values < bound]
            crossings[series.run] = int(reached[0]) if len(reached) else None
    return crossings
