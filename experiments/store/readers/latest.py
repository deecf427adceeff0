"""The last value of some series of many runs: two queries, no history."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from experiments.models import Group
from experiments.store.headline import Stats, finite_or_none


def last_values(run_ids: Sequence[int], names: Collection[str]) -> dict[int, dict[str, float]]:
    """Run → series → its newest value, from the headline state that every commit moves on.

    Left out is what a run never recorded, and what is not finite. Where a later version of a group has the series
    too, that one counts.
    """
    wanted = set(names)
    kept = [
        (pk, run, [(at, name) for at, name in enumerate(columns) if name in wanted], len(columns))
        for pk, run, columns in Group.objects.filter(run__in=run_ids).order_by("id").values_list("pk", "run", "names")
    ]
    kept = [row for row in kept if row[2]]
    stats = dict(Group.objects.filter(pk__in=[pk for pk, *_ in kept]).values_list("pk", "stats"))
    found: dict[int, dict[str, float]] = {}
    for pk, run, columns, width in kept:
        last = Stats.load(stats[pk], width).last
        for at, name in columns:
            if (value := finite_or_none(last[at])) is not None:
                found.setdefault(run, {})[name] = value
    return found
