"""Archived blocks: the exact values of one block of all series of a group, as one object in the block storage.

A row holds the length and the digest of each column's bytes. The pyramid stays in the database, so charts read no
objects. An object that is missing or damaged raises an error that names run and series, never a wrong curve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.models import ArchivedBlock, Group, PendingDeletion

from . import objects

STORAGE = "blocks"
_DIGEST = 8
_INDEX = np.dtype([("length", "<u4"), ("digest", f"V{_DIGEST}")])
WHOLE = 0.5  # of an object wanted: then one request for all of it


class Unreadable(RuntimeError):
    """Archived blocks cannot be read: an object is missing or damaged, or the storage cannot be reached."""


@dataclass(frozen=True)
class Wanted:
    """Columns to read of one archived block."""

    group: Group
    number: int
    key: str
    index: NDArray[np.void]
    columns: tuple[int, ...]

    @property
    def offsets(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.index["length"].astype(np.int64))])


def pack(values: dict[int, bytes], width: int) -> tuple[bytes, bytes]:
    """The object's bytes and its index; columns that are not there have no bytes."""
    index = np.zeros(width, _INDEX)
    for column, data in values.items():
        index[column] = (len(data), digest(data))
    return b"".join(values[column] for column in sorted(values)), index.tobytes()


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def load(groups: Iterable[Group], places: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int, int], bytes]:
    """Exact values at places (group id, column, block number); places that are not archived are left out.

    Raises Unreadable where an object is missing or damaged, or the storage cannot be reached.
    """
    wanted: dict[tuple[int, int], list[int]] = {}
    for group_id, column, number in places:
        wanted.setdefault((group_id, number), []).append(column)
    if not wanted:
        return {}
    known = {group.pk: group for group in groups}
    rows = ArchivedBlock.objects.filter(group_id__in={g for g, _ in wanted}, number__in={n for _, n in wanted})
    return _read(
        [
            Wanted(known[row.group_id], row.number, row.key, _index(row), tuple(columns))
            for row in rows
            if (columns := wanted.get((row.group_id, row.number)))
        ]
    )


def _index(row: ArchivedBlock) -> NDArray[np.void]:
    return np.frombuffer(bytes(row.index), _INDEX)


def _read(blocks: list[Wanted]) -> dict[tuple[int, int, int], bytes]:
    reads = [(block, first, end, columns) for block in blocks for first, end, columns in _spans(block)]
    try:
        replies = objects.ranges([(block.key, first, end) for block, first, end, _ in reads])
    except objects.NoStorage as error:
        raise Unreadable(str(error)) from None
    values: dict[tuple[int, int, int], bytes] = {}
    for (block, first, _, columns), reply in zip(reads, replies, strict=True):
        for column in columns:
            values[block.group.pk, column, block.number] = _checked(block, column, first, reply)
    return values


def _spans(block: Wanted) -> list[tuple[int, int, list[int]]]:
    """Byte ranges with the columns in them: adjacent columns in one range, the whole object if most of it is wanted."""
    offsets = block.offsets
    columns = [column for column in sorted(block.columns) if block.index["length"][column]]
    if not columns:
        return []
    if sum(int(block.index["length"][column]) for column in columns) > WHOLE * offsets[-1]:
        return [(0, int(offsets[-1]), columns)]
    spans: list[tuple[int, int, list[int]]] = []
    for column in columns:
        first, end = int(offsets[column]), int(offsets[column + 1])
        if spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], end, [*spans[-1][2], column])
        else:
            spans.append((first, end, [column]))
    return spans


def _checked(block: Wanted, column: int, first: int, reply: bytes | Exception) -> bytes:
    length, expected = block.index[column]
    start = int(block.offsets[column]) - first
    data = b"" if isinstance(reply, Exception) else reply[start : start + int(length)]
    if digest(data) == bytes(expected):
        return data
    why = f"cannot be read ({reply})" if isinstance(reply, Exception) else "is damaged: its digest differs"
    series = f"run {block.group.run_id}, series {block.group.names[column]}, block {block.number}"
    raise Unreadable(f"{series}: object {block.key} of the block storage {why}")


def forget(group_id: int, least: int = 0, limit: int | None = None) -> int:
    """Delete rows of blocks from number `least` on, in the caller's transaction; their objects are removed later."""
    rows = list(ArchivedBlock.objects.filter(group_id=group_id, number__gte=least).values_list("pk", "key")[:limit])
    PendingDeletion.objects.bulk_create(PendingDeletion(storage=STORAGE, path=key) for _, key in rows)
    ArchivedBlock.objects.filter(pk__in=[pk for pk, _ in rows]).delete()
    return len(rows)


def containing(group: Group, columns: Sequence[int]) -> list[ArchivedBlock]:
    """Archived blocks of the group that contain any of these columns."""
    rows = ArchivedBlock.objects.filter(group=group).order_by("number")
    return [row for row in rows if _index(row)["length"][list(columns)].any()]
