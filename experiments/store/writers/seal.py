"""Sealing: frames become per-series blocks with their pyramid. Safe to interrupt, safe to repeat.

One call seals one level-1 block of one group and any higher blocks that it completes, and deletes the frames it used,
in the caller's transaction, so that a reader sees either the frames or the blocks. No row after the newest checkpoint
is sealed, since a resumed run writes it again.
"""

from __future__ import annotations

import numpy as np
from django.db.models import F
from numpy.typing import NDArray

from experiments.models import Block, Frame, Group, StepIndex
from experiments.store.archive import blocks as archived_blocks
from experiments.store.blocks import codec, packing
from experiments.store.blocks.buckets import FAN, beside, build, merge, milliseconds
from experiments.store.blocks.cover import BLOCK, MAX_LEVEL, PER_BLOCK

MANY_FRAMES = 64  # so many unsealed frames are joined if steps are slow


def seal_next(group: Group, before_step: int, *, final: bool = False) -> bool:
    """Seal the group's next block if its rows lie before `before_step`; a last, shorter one only if `final`.

    If there are too few rows, many small frames are joined into one. Returns whether a block was sealed.
    """
    frames = list(Frame.objects.filter(group=group, last_step__lt=before_step, first_row__lt=group.sealed + BLOCK))
    waiting = sum(frame.rows for frame in frames)
    if waiting < BLOCK and not (final and waiting):
        if len(frames) >= MANY_FRAMES:
            _join(group, frames)
        return False
    rows = codec.join([codec.decode(frame.data) for frame in frames])
    block, rest = _split(rows, min(BLOCK, waiting))
    number = group.sealed // BLOCK
    _store(group, number, block)
    if len(block.steps) == BLOCK:
        _store_completed_levels(group, number)
    Frame.objects.filter(group=group, pk__in=[frame.pk for frame in frames]).delete()
    if len(rest.steps):
        _frame(group, rest, group.sealed + BLOCK)
    _advance(group, block)
    return True


def _split(rows: codec.Table, at: int) -> tuple[codec.Table, codec.Table]:
    return (
        codec.Table(rows.steps[:at], rows.times[:at], rows.values[:, :at]),
        codec.Table(rows.steps[at:], rows.times[at:], rows.values[:, at:]),
    )


def _store(group: Group, number: int, block: codec.Table) -> None:
    """Store the step index and the level-1 blocks of all series."""
    StepIndex.objects.create(
        group=group,
        number=number,
        first_step=int(block.steps[0]),
        last_step=int(block.steps[-1]),
        data=packing.pack_step_index(block.steps, block.times),
    )
    buckets = build(block.values, block.steps, milliseconds(block.times), FAN)
    Block.objects.bulk_create(
        Block(
            group=group,
            column=column,
            level=1,
            number=number,
            summary=packing.pack_fine(buckets, column, block.steps),
            data=packing.pack_values(values),
        )
        for column, values in enumerate(block.values)
    )


def _store_completed_levels(group: Group, number: int) -> None:
    """Store the blocks of higher levels that level-1 block `number` completes."""
    for level in range(2, MAX_LEVEL + 1):
        if (number + 1) % FAN ** (level - 1):
            break
        _store_coarse(group, level, (number + 1) // FAN ** (level - 1) - 1)


def _store_coarse(group: Group, level: int, number: int) -> None:
    """Merge sixteen blocks of the level below into one."""
    below = Block.objects.filter(
        group=group, level=level - 1, number__gte=number * FAN, number__lt=(number + 1) * FAN
    ).order_by("number", "column")
    parts: dict[int, list[bytes]] = {}
    for at, summary in below.values_list("number", "summary"):
        parts.setdefault(at, []).append(bytes(summary))
    if level == 2:
        indexes = dict(StepIndex.objects.filter(group=group, number__in=parts).values_list("number", "data"))
        fine = [
            packing.unpack_fine(packed, BLOCK, packing.unpack_step_indexes([bytes(indexes[at])], BLOCK))
            for at, packed in parts.items()
        ]
    else:
        fine = [packing.unpack_coarse(packed, PER_BLOCK) for packed in parts.values()]
    coarse = merge(beside(fine), FAN)
    Block.objects.bulk_create(
        Block(group=group, column=column, level=level, number=number, summary=packing.pack_coarse(coarse, column))
        for column in range(coarse.shape[0])
    )


def _join(group: Group, frames: list[Frame]) -> None:
    """Replace many frames by one; the revision tells readers to read again."""
    rows = codec.join([codec.decode(frame.data) for frame in frames])
    Frame.objects.filter(group=group, pk__in=[frame.pk for frame in frames]).delete()
    _frame(group, rows, frames[0].first_row)
    Group.objects.filter(pk=group.pk).update(revision=F("revision") + 1)


def _frame(group: Group, rows: codec.Table, first_row: int) -> None:
    Frame.objects.create(
        group=group,
        first_step=int(rows.steps[0]),
        last_step=int(rows.steps[-1]),
        first_row=first_row,
        rows=len(rows.steps),
        data=codec.encode(rows),
    )


def _advance(group: Group, block: codec.Table) -> None:
    first = int(block.steps[0]) if group.sealed == 0 else group.first_step
    stride = _stride(group, block.steps)
    group.sealed += len(block.steps)
    group.sealed_step, group.first_step, group.stride = int(block.steps[-1]), first, stride
    group.revision += 1
    kept = {"sealed": group.sealed, "sealed_step": group.sealed_step, "first_step": first, "stride": stride}
    Group.objects.filter(pk=group.pk).update(**kept, revision=F("revision") + 1)


def _stride(group: Group, steps: NDArray[np.int64]) -> int:
    """Steps between rows if they have always been the same, else 0."""
    gaps = np.diff(steps, prepend=group.sealed_step) if group.sealed else np.diff(steps)
    gap = int(gaps[0]) if len(gaps) else 1
    if (gaps != gap).any() or (group.sealed and gap != group.stride):
        return 0
    return gap


def unseal(group: Group, step: int) -> None:
    """Unseal every row at `step` and later; earlier rows of the same block become a frame again."""
    if group.sealed == 0 or step > group.sealed_step:
        return
    index = StepIndex.objects.filter(group=group, last_step__gte=step).order_by("number").first()
    assert index is not None, "the group's sealed_step says that there is one"
    whole = index.number * BLOCK
    rows = min(group.sealed - whole, BLOCK)
    steps, millis = packing.unpack_step_index(bytes(index.data), rows)
    kept = int(np.searchsorted(steps, step))
    if kept:
        values = _exact_values(group, index.number, rows)
        _frame(group, codec.Table(steps[:kept], millis[:kept] / 1000, values[:, :kept]), whole)
    for level in range(1, MAX_LEVEL + 1):
        Block.objects.filter(group=group, level=level, number__gte=index.number // FAN ** (level - 1)).delete()
    StepIndex.objects.filter(group=group, number__gte=index.number).delete()
    archived_blocks.forget(group.pk, index.number)
    before = StepIndex.objects.filter(group=group).order_by("-number").values_list("last_step", flat=True).first()
    group.sealed, group.sealed_step = whole, -1 if before is None else before
    group.archived = min(group.archived, whole)
    sealed = {"sealed": group.sealed, "sealed_step": group.sealed_step, "archived": group.archived}
    Group.objects.filter(pk=group.pk).update(**sealed, revision=F("revision") + 1)


def _exact_values(group: Group, number: int, rows: int) -> NDArray[np.float32]:
    """Values [series, rows] of a level-1 block, from the database or the block storage."""
    packed = Block.objects.filter(group=group, level=1, number=number).order_by("column")
    inline = dict(packed.values_list("column", "data"))
    places = [(group.pk, column, number) for column, data in inline.items() if data is None]
    outside = archived_blocks.load([group], places)
    blobs = [outside[group.pk, column, number] if data is None else data for column, data in inline.items()]
    return np.stack([packing.unpack_values(bytes(data), rows) for data in blobs])
