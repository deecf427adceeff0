"""The series of a run: names, groups and headline values, without any history."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.models import Group
from experiments.store.headline import HeadlineValues, Stats


@dataclass(frozen=True)
class SeriesInfo:
    """A series' name, group and headline values."""

    name: str
    group: str
    headline: HeadlineValues


def catalogue(run_id: int) -> list[SeriesInfo]:
    """Every series of a run with its headline values; reads no history."""
    newest: dict[str, SeriesInfo] = {}
    for group in Group.objects.filter(run_id=run_id).order_by("id"):
        stats = Stats.load(group.stats, len(group.names))
        for column, name in enumerate(group.names):
            newest[name] = SeriesInfo(name, group.name, stats.headline(column))
    return list(newest.values())
