"""When a series first falls below a value: a measure that goes on telling nets apart after all have learned."""

from __future__ import annotations

from collections.abc import Sequence

from .series import read

_EVERY_POINT = 10_000_000


def first_below(run_ids: Sequence[int], name: str, bound: float) -> dict[int, int | None]:
    """Run → the first step at which the series lies below `bound`, None where no step does.

    Left out are runs without the series, and those that have lost points to thinning: there nobody can say.
    """
    found: dict[int, int | None] = {}
    for series in read(run_ids, [name], max_points=_EVERY_POINT):
        if series.exact and not series.thinned:
            reached = series.steps[series.values < bound]
            found[series.run] = int(reached[0]) if len(reached) else None
    return found
