"""The last value of some series of many runs: two queries, no history."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from experiments.models import Group
from experiments.store.headline import Stats, finite_or_none


def last_values(run_ids: Sequence[int], names: Collection[str]) -> dict[int, dict[str, float]]:
    """By run and series, the newest value, from the headline state that every commit updates.

    Series that a run never recorded and values that are not finite are left out. If several versions of a group have
    the series, the newest counts.
    """
    wanted = set(names)
    kept = [
        (pk, run, [(column, name) for column, name in enumerate(columns) if name in wanted], len(columns))
        for pk, run, columns in Group.objects.filter(run__in=run_ids).order_by("id").values_list("pk", "run", "names")
    ]
    kept = [row for row in kept if row[2]]
    stats = dict(Group.objects.filter(pk__in=[pk for pk, *_ in kept]).values_list("pk", "stats"))
    values: dict[int, dict[str, float]] = {}
    for pk, run, columns, width in kept:
        last = Stats.load(stats[pk], width).last
        for column, name in columns:
            if (value := finite_or_none(last[column])) is not None:
                values.setdefault(run, {})[name] = value
    return values
