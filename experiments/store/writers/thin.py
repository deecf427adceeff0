"""Thinning: delete exact values and fine buckets; a coarser level of the pyramid, whose points are real, remains.

First the group records it, and from then on no reader reads more; then rows are deleted, a few per transaction, each
only if a complete coarser block covers it. So it can stop between any two statements and continue later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.db.models import F, QuerySet

from experiments.models import Block, Group
from experiments.store.blocks.cover import covered
from experiments.store.choice import matches

Thinner = tuple[QuerySet[Block], bool]  # rows, and whether only their exact values are deleted


def thin(group: Group, globs: Sequence[str], level: int) -> int:
    """Record that the matching series are kept from `level` on. Returns how many had finer levels before."""
    before = group.thinned or [0] * len(group.names)
    after = [max(old, level if matches(name, globs) else 0) for old, name in zip(before, group.names, strict=True)]
    fresh: int = sum(new > old for new, old in zip(after, before, strict=True))
    if fresh:
        Group.objects.filter(pk=group.pk).update(thinned=after, revision=F("revision") + 1)
        group.thinned = after
    return fresh


def drop_some(group: Group, limit: int) -> int:
    """Delete at most `limit` rows that the group no longer keeps. Returns how many; 0 when none are left.

    All rows of the group must be sealed.
    """
    for rows, values_only in _surplus(group):
        some = list(rows.order_by("pk").values_list("pk", flat=True)[:limit])
        if some:
            chosen = Block.objects.filter(group=group, pk__in=some)
            gone: int = chosen.update(data=None) if values_only else chosen.delete()[0]
            return gone
    return 0


def _surplus(group: Group) -> Iterator[Thinner]:
    floors: dict[int, list[int]] = {}
    for column, floor in enumerate(group.thinned):
        floors.setdefault(floor, []).append(column)
    for floor, columns in floors.items():
        blocks = Block.objects.filter(group=group, column__in=columns)
        if floor:
            yield blocks.filter(level=1, data__isnull=False), True
        for level in range(1, floor):
            yield blocks.filter(level=level, number__lt=covered(level, group.sealed)), False
