"""Archiving: exact values of ended runs move from the database to the block storage, one block of a group at a time.

A pending deletion of the object is recorded before the object is written, and withdrawn in the transaction that creates
the archived block's row. So an object without a row is removed by the next sweep. The sweep marks a pending deletion as
doomed first, so that a slow writer cannot create a row for an object that is about to be removed.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import Min

from experiments.models import ArchivedBlock, Block, Group, PendingDeletion, Run
from experiments.states import ENDED
from experiments.store.blocks.cover import BLOCK

from . import blocks, objects


def archive_next(group: Group, min_bytes: int) -> int | None:
    """Move the group's next block, unless it has fewer bytes than `min_bytes`. Returns the bytes moved, or None if
    nothing is left or the run was resumed. Updates `group`. Runs its own transactions."""
    if group.archived >= group.sealed:
        return None
    number = group.archived // BLOCK
    rows = Block.objects.filter(group=group, level=1, number=number, data__isnull=False)
    values = {column: bytes(data) for column, data in rows.values_list("column", "data") if data is not None}
    size = sum(map(len, values.values()))
    if not values or size < min_bytes:
        return 0 if _advance(group) else None
    key = f"{group.pk // 1000}/{group.pk}/{number}-{uuid.uuid4().hex}"
    PendingDeletion.objects.create(storage=blocks.STORAGE, path=key)
    body, index = blocks.pack(values, len(group.names))
    objects.put(key, body)
    with transaction.atomic():
        pending = PendingDeletion.objects.filter(storage=blocks.STORAGE, path=key, doomed=False)
        if not _unchanged(group) or not pending.delete()[0]:
            return None
        ArchivedBlock.objects.create(group=group, number=number, key=key, size=size, index=index)
        rows.filter(column__in=values).update(data=None)
        _advance(group)
    return size


def _unchanged(group: Group) -> bool:
    """Is the run still ended, and the group as it was when it was read? Locks the run."""
    ended = Run.objects.select_for_update().filter(groups=group.pk, state__in=ENDED).first()
    return ended is not None and Group.objects.filter(pk=group.pk, revision=group.revision).exists()


def _advance(group: Group) -> int:
    end = min(group.archived + BLOCK, group.sealed)
    moved = Group.objects.filter(pk=group.pk, revision=group.revision, archived=group.archived).update(archived=end)
    group.archived = end
    return moved


def take_back(group: Group) -> int:
    """Return archived blocks with thinned columns to the database, without those columns. Returns how many.

    They may be archived again. Raises Unreadable if an object cannot be read.
    """
    thinned = [column for column, floor in enumerate(group.thinned) if floor]
    kept = [column for column, floor in enumerate(group.thinned) if not floor]
    archived = blocks.containing(group, thinned) if thinned else []
    for block in archived:
        _restore(group, block, kept)
    if archived:
        first = Block.objects.filter(group=group, level=1, data__isnull=False).aggregate(least=Min("number"))["least"]
        Group.objects.filter(pk=group.pk).update(archived=group.sealed if first is None else first * BLOCK)
    return len(archived)


def _restore(group: Group, block: ArchivedBlock, columns: list[int]) -> None:
    values = blocks.load([group], [(group.pk, column, block.number) for column in columns])
    with transaction.atomic():
        if ArchivedBlock.objects.select_for_update().filter(pk=block.pk).first() is None:
            return
        for (_, column, number), data in values.items():
            Block.objects.filter(group=group, column=column, level=1, number=number).update(data=data)
        PendingDeletion.objects.create(storage=blocks.STORAGE, path=block.key)
        block.delete()
