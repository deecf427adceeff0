"""A digest of what a run recorded: equal digests mean equal series, to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from experiments.models import Group

from .series import Series, read

GROUPS = ("train", "eval", "probe", "test")  # a function of spec, data and code; `system` is not
NONE = "-"  # of a run whose points were thinned, or are too many to read again
_AT_ONCE = 4_000_000  # values in memory
_MOST = 50_000_000  # values of a run that is digested at all


def digest(run_id: int) -> str:
    """SHA-256 over names, steps and exact values, in order of names; wall-clock times are left out. NONE where that
    cannot be had. Reads every point once. Raises Unreadable where the block storage does not answer."""
    groups = list(Group.objects.filter(run_id=run_id, name__in=GROUPS).defer("stats"))
    rows = max((group.rows for group in groups), default=0)
    if sum(group.rows * len(group.names) for group in groups) > _MOST or any(group.thinned for group in groups):
        return NONE
    names = sorted({name for group in groups for name in group.names if name.partition("/")[0] != "time"})
    whole = hashlib.sha256()
    for series in _series(run_id, names, rows):
        if not series.exact:
            return NONE
        whole.update(f"{series.name}\0{len(series.steps)}\0".encode())
        whole.update(series.steps.astype("<i8").tobytes())
        whole.update(series.values.astype("<f4").tobytes())
    return whole.hexdigest()


def _series(run_id: int, names: list[str], rows: int) -> Iterator[Series]:
    width = max(1, min(200, _AT_ONCE // max(1, rows)))
    for start in range(0, len(names), width):
        wanted = set(names[start : start + width])
        found = [one for one in read([run_id], sorted(wanted), max_points=max(5, rows + 1)) if one.group in GROUPS]
        yield from sorted(found, key=lambda one: (one.name, one.group))
