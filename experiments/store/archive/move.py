"""Shipping: exact values of ended runs go from the database to the block storage, one block of a group at a time.

A name is noted before its object is written and struck off in the transaction that makes the parcel's row: whatever is
still noted is no parcel's, and is removed by the next sweep. Whoever removes dooms the name first, so that a slow
writer cannot name an object that is about to go.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import Min

from experiments.models import Block, Group, Leftover, Parcel, Run
from experiments.states import ENDED
from experiments.store.blocks.cover import BLOCK

from . import blocks as parcels
from . import objects


def ship_next(group: Group, min_bytes: int) -> int | None:
    """Move the group's next block; one of fewer bytes stays. Returns the bytes moved, None where nothing is left, or
    where the run has been taken up again. `group` moves on. Runs its own transactions."""
    if group.parcelled >= group.sealed:
        return None
    number = group.parcelled // BLOCK
    rows = Block.objects.filter(group=group, level=1, number=number, data__isnull=False)
    values = {column: bytes(data) for column, data in rows.values_list("column", "data") if data is not None}
    size = sum(map(len, values.values()))
    if not values or size < min_bytes:
        return 0 if _advance(group) else None
    key = f"{group.pk // 1000}/{group.pk}/{number}-{uuid.uuid4().hex}"
    Leftover.objects.create(storage=parcels.STORAGE, path=key)
    body, index = parcels.pack(values, len(group.names))
    objects.put(key, body)
    with transaction.atomic():
        noted = Leftover.objects.filter(storage=parcels.STORAGE, path=key, doomed=False)
        if not _unchanged(group) or not noted.delete()[0]:
            return None
        Parcel.objects.create(group=group, number=number, key=key, size=size, index=index)
        rows.filter(column__in=values).update(data=None)
        _advance(group)
    return size


def _unchanged(group: Group) -> bool:
    """Is the run still over, and its group as it was when it was read? Locks the run."""
    over = Run.objects.select_for_update().filter(groups=group.pk, state__in=ENDED).first()
    return over is not None and Group.objects.filter(pk=group.pk, revision=group.revision).exists()


def _advance(group: Group) -> int:
    end = min(group.parcelled + BLOCK, group.sealed)
    moved = Group.objects.filter(pk=group.pk, revision=group.revision, parcelled=group.parcelled).update(parcelled=end)
    group.parcelled = end
    return moved


def take_back(group: Group) -> int:
    """Parcels that hold what the group no longer keeps come back into the database, without it. Returns how many.

    They may be shipped again. Raises Unreadable where an object cannot be read.
    """
    thinned = [column for column, floor in enumerate(group.thinned) if floor]
    taken = parcels.holding(group, thinned) if thinned else []
    kept = [column for column, floor in enumerate(group.thinned) if not floor]
    for parcel in taken:
        values = parcels.load([group], [(group.pk, column, parcel.number) for column in kept])
        with transaction.atomic():
            if Parcel.objects.select_for_update().filter(pk=parcel.pk).first() is None:
                continue
            for (_, column, number), data in values.items():
                Block.objects.filter(group=group, column=column, level=1, number=number).update(data=data)
            Leftover.objects.create(storage=parcels.STORAGE, path=parcel.key)
            parcel.delete()
    if taken:
        first = Block.objects.filter(group=group, level=1, data__isnull=False).aggregate(least=Min("number"))["least"]
        Group.objects.filter(pk=group.pk).update(parcelled=group.sealed if first is None else first * BLOCK)
    return len(taken)
