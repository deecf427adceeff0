"""A digest of what a run recorded: equal digests mean equal series, to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from experiments.models import Group

from .series import Series, read

GROUPS = ("train", "eval", "probe", "test")  # functions of spec, data and code; `system` is not
NONE = "-"  # if points were thinned, or are too many to read
_AT_ONCE = 4_000_000  # values in memory
_MOST = 50_000_000  # values; runs with more are not digested


def digest(run_id: int) -> str:
    """SHA-256 over names, steps and exact values, in order of names, without wall-clock times; NONE if points are
    missing or too many. Reads every point once. Raises Unreadable if the block storage cannot be read."""
    groups = list(Group.objects.filter(run_id=run_id, name__in=GROUPS).defer("stats"))
    values = sum(group.rows * len(group.names) for group in groups)
    if values > _MOST or any(group.thinned for group in groups):
        return NONE
    whole = hashlib.sha256()
    for series in _series(run_id, groups):
        if not series.exact:
            return NONE
        whole.update(f"{series.name}\0{len(series.steps)}\0".encode())
        whole.update(series.steps.astype("<i8").tobytes())
        whole.update(series.values.astype("<f4").tobytes())
    return whole.hexdigest()


def _series(run_id: int, groups: list[Group]) -> Iterator[Series]:
    """All series but times, in order of names, read some at a time."""
    names = sorted({name for group in groups for name in group.names if name.partition("/")[0] != "time"})
    rows = max((group.rows for group in groups), default=0)
    width = max(1, min(200, _AT_ONCE // max(1, rows)))
    for start in range(0, len(names), width):
        several = read([run_id], names[start : start + width], max_points=max(5, rows + 1))
        yield from sorted((s for s in several if s.group in GROUPS), key=lambda series: (series.name, series.group))
