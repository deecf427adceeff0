"""Parcels: exact values of one block of all series of a group, as one object outside of the database.

The row keeps where each column's bytes are and their digest; the pyramid stays in the database, so charts read no
objects. An object that is missing or differs gives an error that names run and series, never a curve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.models import Group, Leftover, Parcel

from . import objects

STORAGE = "blocks"
_DIGEST = 8
_INDEX = np.dtype([("length", "<u4"), ("digest", f"V{_DIGEST}")])
WHOLE = 0.5  # of an object wanted: then one request for all of it


class Unreadable(RuntimeError):
    """Blocks that lie in the block storage cannot be read: missing, damaged, or the storage is away."""


@dataclass(frozen=True)
class Wanted:
    """Columns of a block that lies in a parcel."""

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
    """Exact values of places (group id, column, block number), as far as parcels hold them.

    Raises Unreadable where an object is missing or damaged, or the storage cannot be reached.
    """
    wanted: dict[tuple[int, int], list[int]] = {}
    for group_id, column, number in places:
        wanted.setdefault((group_id, number), []).append(column)
    if not wanted:
        return {}
    known = {group.pk: group for group in groups}
    rows = Parcel.objects.filter(group_id__in={g for g, _ in wanted}, number__in={n for _, n in wanted})
    found = [
        Wanted(
            known[parcel.group_id],
            parcel.number,
            parcel.key,
            np.frombuffer(bytes(parcel.index), _INDEX),
            tuple(columns),
        )
        for parcel in rows
        if (columns := wanted.get((parcel.group_id, parcel.number)))
    ]
    return _read(found)


def _read(found: list[Wanted]) -> dict[tuple[int, int, int], bytes]:
    plans = [(one, first, end, columns) for one in found for first, end, columns in _spans(one)]
    try:
        replies = objects.ranges([(one.key, first, end) for one, first, end, _ in plans])
    except objects.NoStorage as error:
        raise Unreadable(str(error)) from None
    values: dict[tuple[int, int, int], bytes] = {}
    for (one, first, _, columns), reply in zip(plans, replies, strict=True):
        for column in columns:
            values[one.group.pk, column, one.number] = _checked(one, column, first, reply)
    return values


def _spans(one: Wanted) -> list[tuple[int, int, list[int]]]:
    """Ranges of bytes with the columns in them: neighbours together, all where most is wanted."""
    offsets = one.offsets
    columns = [column for column in sorted(one.columns) if one.index["length"][column]]
    if not columns:
        return []
    if sum(int(one.index["length"][column]) for column in columns) > WHOLE * offsets[-1]:
        return [(0, int(offsets[-1]), columns)]
    spans: list[tuple[int, int, list[int]]] = []
    for column in columns:
        first, end = int(offsets[column]), int(offsets[column + 1])
        if spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], end, [*spans[-1][2], column])
        else:
            spans.append((first, end, [column]))
    return spans


def _checked(one: Wanted, column: int, first: int, reply: bytes | Exception) -> bytes:
    length, expected = one.index[column]
    start = int(one.offsets[column]) - first
    data = b"" if isinstance(reply, Exception) else reply[start : start + int(length)]
    if digest(data) == bytes(expected):
        return data
    why = f"cannot be read ({reply})" if isinstance(reply, Exception) else "is damaged: its digest differs"
    series = f"run {one.group.run_id}, series {one.group.names[column]}, block {one.number}"
    raise Unreadable(f"{series}: object {one.key} of the block storage {why}")


def forget(group_id: int, least: int = 0, limit: int | None = None) -> int:
    """Drop parcels of blocks from number `least` on, in the caller's transaction; their objects go afterwards."""
    rows = list(Parcel.objects.filter(group_id=group_id, number__gte=least).values_list("pk", "key")[:limit])
    Leftover.objects.bulk_create(Leftover(storage=STORAGE, path=key) for _, key in rows)
    Parcel.objects.filter(pk__in=[pk for pk, _ in rows]).delete()
    return len(rows)


def holding(group: Group, columns: Sequence[int]) -> list[Parcel]:
    """Parcels of the group that hold any of these columns."""
    rows = Parcel.objects.filter(group=group).order_by("number")
    return [row for row in rows if np.frombuffer(bytes(row.index), _INDEX)["length"][list(columns)].any()]
