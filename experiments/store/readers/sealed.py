"""Reading sealed blocks: a few queries for many groups, columns and pieces at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from operator import or_

import numpy as np
from django.db.models import Q, QuerySet
from numpy.typing import NDArray

from experiments.models import Block, Group, StepIndex
from experiments.store.archive import blocks as archived_blocks
from experiments.store.blocks import codec, packing
from experiments.store.blocks.blobs import fetch_rows
from experiments.store.blocks.buckets import FAN, Buckets, below, beside, build, clip, merge, milliseconds
from experiments.store.blocks.cover import BLOCK, PER_BLOCK, Piece

Owner = tuple[int, int]  # group id, column
TOGETHER = 1024  # summaries unpacked at once: 28 kB each while they are not merged


@dataclass
class Sealed:
    """Fetched bytes of pieces; all groups have the same pieces and columns."""

    groups: list[Group]
    columns: Sequence[int]
    pieces: Sequence[Piece]
    _summaries: dict[tuple[int, int, int, int], bytes] = field(default_factory=dict)
    _data: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    _indexes: dict[tuple[int, int], bytes] = field(default_factory=dict)

    @property
    def owners(self) -> list[Owner]:
        """Group and column of every row of a result."""
        return [(group.pk, column) for group in self.groups for column in self.columns]

    def rows(self, piece: Piece) -> int:
        """Rows of a level-1 block, equal for all groups here; only the last of a finished group is shorter."""
        if piece.level > 1:
            return BLOCK
        return min(self.groups[0].sealed - piece.number * BLOCK, BLOCK)

    def summaries(self, piece: Piece) -> list[bytes]:
        return [self._summaries[group, column, piece.level, piece.number] for group, column in self.owners]

    def step_indexes(self, groups: Sequence[Group], piece: Piece) -> packing.StepIndexes:
        """Steps and times of a level-1 block of these groups."""
        return packing.unpack_step_indexes(
            [self._indexes[group.pk, piece.number] for group in groups], self.rows(piece)
        )

    def exact(self, group: Group, piece: Piece) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
        """Steps, times in seconds [rows] and values [columns, rows] of a piece of level 0."""
        steps, millis = self.step_indexes([group], piece).all_of(0)
        rows, cut = self.rows(piece), slice(piece.first, piece.last)
        values = [packing.unpack_values(self._data[group.pk, column, piece.number], rows) for column in self.columns]
        return steps[cut], millis[cut] / 1000.0, np.stack(values)[:, cut]

    def history(self, group: Group) -> codec.Table:
        """The exact rows of all pieces, which are of level 0; blocks of equal length are unpacked together."""
        parts = []
        for rows, some in groupby(self.pieces, self.rows):
            pieces = list(some)
            steps, millis = packing.unpack_step_indexes(
                [self._indexes[group.pk, piece.number] for piece in pieces], rows
            ).all()
            packed = [self._data[group.pk, column, piece.number] for column in self.columns for piece in pieces]
            values = packing.unpack_blocks(packed, rows) if packed else np.empty(0, np.float32)
            values = values.reshape(len(self.columns), steps.size)
            cut = slice(pieces[0].first, (len(pieces) - 1) * rows + pieces[-1].last)
            parts.append(codec.Table(steps.ravel()[cut], millis.ravel()[cut] / 1000.0, values[:, cut]))
        return codec.join(parts, len(self.columns))

    def buckets(self, level: int, ends: tuple[int, int] | None = None) -> Buckets:
        """All pieces as buckets of `level`, [owners, buckets]; equal pieces are unpacked together. With `ends`, the
        first and the last piece are clipped to these steps."""
        if ends is None:
            return beside(self._parts(self.pieces, level))
        edges = [
            merge(clip(self.own(piece), *ends), FAN ** (level - piece.level))
            for piece in dict.fromkeys([self.pieces[0], self.pieces[-1]])
        ]
        return beside([edges[0], *self._parts(self.pieces[1:-1], level), *edges[1:]])

    def _parts(self, wanted: Sequence[Piece], level: int) -> list[Buckets]:
        parts = []
        for (finer, _), alike in groupby(wanted, lambda piece: (piece.level, self.rows(piece))):
            pieces = list(alike)
            each = max(TOGETHER // len(self.owners), 1) if finer else 1
            parts += [self._merged(pieces[low : low + each], level) for low in range(0, len(pieces), each)]
        return parts

    def own(self, piece: Piece) -> Buckets:
        """The buckets of one piece of level 1 or higher as they are stored, [owners, buckets]."""
        return self._merged([piece], piece.level)

    def _merged(self, pieces: list[Piece], level: int) -> Buckets:
        finer = pieces[0].level
        if finer == 0:
            return below([self._built(group, pieces[0], level) for group in self.groups])
        packed: list[bytes] = []
        for group in self.groups:
            for piece in pieces:
                packed += [self._summaries[group.pk, column, finer, piece.number] for column in self.columns]
        if finer == 1:
            packed_indexes = [self._indexes[group.pk, piece.number] for group in self.groups for piece in pieces]
            rows = self.rows(pieces[0])
            buckets = packing.unpack_fine(packed, rows, packing.unpack_step_indexes(packed_indexes, rows))
        else:
            buckets = packing.unpack_coarse(packed, PER_BLOCK)
        return self._beside(merge(buckets, FAN ** (level - finer)), len(pieces))

    def _beside(self, buckets: Buckets, pieces: int) -> Buckets:
        """From rows of (group, piece, column) to rows of (group, column) with the pieces beside each other."""
        if pieces == 1:
            return buckets
        shape = (len(self.groups), pieces, len(self.columns), -1)
        each = {name: column.reshape(shape).transpose(0, 2, 1, 3) for name, column in buckets.items()}
        return Buckets((name, column.reshape(len(self.owners), -1)) for name, column in each.items())

    def _built(self, group: Group, piece: Piece, level: int) -> Buckets:
        steps, times, values = self.exact(group, piece)
        return build(values, steps, milliseconds(times), FAN**level)


def fetch(groups: list[Group], columns: Sequence[int], pieces: Sequence[Piece]) -> Sealed:
    """Read the pieces of all groups: at most three queries, and one for archived blocks."""
    ids = [group.pk for group in groups]
    blocks = Block.objects.filter(group_id__in=ids, column__in=columns)
    return Sealed(
        groups,
        columns,
        pieces,
        _summaries(blocks, [piece for piece in pieces if piece.level > 0]),
        _exact(blocks, groups, [piece.number for piece in pieces if piece.level == 0]),
        _step_indexes(ids, {piece.number for piece in pieces if piece.level <= 1}),
    )


def _summaries(blocks: QuerySet[Block], pieces: list[Piece]) -> dict[tuple[int, int, int, int], bytes]:
    if not pieces:
        return {}
    rows = fetch_rows(blocks.filter(_places(pieces)).values_list("group_id", "column", "level", "number", "summary"))
    return {(group, column, level, number): bytes(packed) for group, column, level, number, packed in rows}


def _exact(blocks: QuerySet[Block], groups: list[Group], numbers: list[int]) -> dict[tuple[int, int, int], bytes]:
    if not numbers:
        return {}
    values, archived = {}, []
    rows = blocks.filter(level=1, number__in=numbers).values_list("group_id", "column", "number", "data")
    for *place, packed in fetch_rows(rows):
        group, column, number = place
        if packed is None:  # archived; or thinned after the group was read, and the reader will notice
            archived.append((group, column, number))
        else:
            values[group, column, number] = bytes(packed)
    return values | archived_blocks.load(groups, archived)


def _places(pieces: Iterable[Piece]) -> Q:
    """One condition for each range of consecutive numbers of a level."""
    return reduce(or_, (Q(level=level, number__gte=low, number__lte=high) for level, low, high in _spans(pieces)))


def _spans(pieces: Iterable[Piece]) -> Iterator[tuple[int, int, int]]:
    places = sorted((piece.level, piece.number) for piece in pieces)
    for (level, _), run in groupby(enumerate(places), lambda place: (place[1][0], place[1][1] - place[0])):
        numbers = [number for _, (_, number) in run]
        yield level, numbers[0], numbers[-1]


def _step_indexes(groups: list[int], numbers: set[int]) -> dict[tuple[int, int], bytes]:
    if not numbers:
        return {}
    rows = StepIndex.objects.filter(group_id__in=groups, number__gte=min(numbers), number__lte=max(numbers))
    wanted = rows.values_list("group_id", "number", "data")
    return {(group, number): bytes(data) for group, number, data in fetch_rows(wanted) if number in numbers}


def position(group: Group, step: int) -> int:
    """How many sealed rows of the group have a step below `step`."""
    if group.sealed == 0 or step > group.sealed_step:
        return group.sealed
    if group.stride:
        return min(max(-(-(step - group.first_step) // group.stride), 0), group.sealed)
    index = StepIndex.objects.filter(group=group, last_step__gte=step).order_by("number").first()
    if index is None:
        return group.sealed
    steps, _ = packing.unpack_step_index(bytes(index.data), min(group.sealed - index.number * BLOCK, BLOCK))
    return int(index.number * BLOCK + np.searchsorted(steps, step))
