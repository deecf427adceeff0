"""The stored form of sealed pieces. Bytes of equal weight stand together, then LZ4: noise in the low bytes of a
float does not hide the order in the high ones, and unpacking is a copy (docs/decisions/0005).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .buckets import FAN, FIELDS, NEVER, Buckets, milliseconds

_LZ4 = pa.Codec("lz4_raw")
# Level 1, per bucket of 16 rows: four values, where the extremes and the first non-finite point stand, how many
# are not finite. The steps and times of those places are the index's.
_FINE_VALUES = ("first", "low", "high", "last")
_FINE_PLACES = ("low_step", "high_step", "odd_step")
_NONE = 255
_CLOCK = struct.Struct("<?qqq")  # evenly spaced, first step, stride, first time in milliseconds
_COARSE = sum(np.dtype(kind).itemsize for kind in FIELDS.values())
_KINDS = np.array([np.nan, np.inf, -np.inf], np.float32)  # of the first non-finite point, beside the count


def pack_values(values: NDArray[np.float32]) -> bytes:
    """Exact values [rows] of one series."""
    return _squeeze(_planes(values))


def unpack_values(data: bytes, rows: int) -> NDArray[np.float32]:
    values: NDArray[np.float32] = unpack_blocks([data], rows)[0]
    return values


def unpack_blocks(packed: Sequence[bytes], rows: int) -> NDArray[np.float32]:
    """Exact values [blocks, rows] of equally long blocks."""
    return _value_plane(_stack(packed, 4 * rows), 0, rows)


def pack_step_index(steps: NDArray[np.int64], times: NDArray[np.float64]) -> bytes:
    """Steps and times [rows] of a block: even steps as first and stride, times as differences in milliseconds."""
    stride = int(steps[1] - steps[0]) if len(steps) > 1 else 1
    even = bool((np.diff(steps) == stride).all())
    millis = milliseconds(times)
    head = _CLOCK.pack(even, steps[0], stride, millis[0])
    gaps = np.diff(millis, prepend=millis[0]).astype("<i4")
    return head + _squeeze((b"" if even else steps.astype("<i8").tobytes()) + _planes(gaps))


@dataclass(frozen=True)
class StepIndexes:
    """Steps and times of equally long blocks of several groups. Row k is index k; times are in milliseconds.

    Evenly spaced steps are computed where they are asked for; `uneven` [indexes, rows] holds the others.
    """

    rows: int
    first: NDArray[np.int64]  # [indexes, 1]
    stride: NDArray[np.int64]  # [indexes, 1]
    base: NDArray[np.int64]  # [indexes, 1]
    since: NDArray[np.int32]  # [indexes, rows], since base
    uneven: NDArray[np.int64] | None

    def at(self, index: NDArray[np.int64], row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Steps and milliseconds of places [n, m]; `index` is [n, 1], `row` broadcasts to [n, m]."""
        place = index * self.rows + row
        millis = self.base[index[:, 0]] + self.since.ravel()[place]
        if self.uneven is not None:
            return self.uneven.ravel()[place], millis
        return self.first[index[:, 0]] + self.stride[index[:, 0]] * row, millis

    def all(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every step and millisecond, [indexes, rows] each."""
        steps = self.first + self.stride * np.arange(self.rows) if self.uneven is None else self.uneven
        return steps, self.base + self.since

    def all_of(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every step and millisecond of one index, [rows]."""
        steps, millis = self.at(np.array([[index]]), np.arange(self.rows)[None])
        return steps[0], millis[0]


def unpack_step_indexes(packed: Sequence[bytes], rows: int) -> StepIndexes:
    """The step indexes of blocks of `rows` rows each."""
    heads = [_CLOCK.unpack_from(data) for data in packed]
    raw = [
        _inflate(data[_CLOCK.size :], (4 if head[0] else 12) * rows) for data, head in zip(packed, heads, strict=True)
    ]
    gaps = np.frombuffer(b"".join([data[-4 * rows :] for data in raw]), "u1").reshape(len(raw), 4, rows)
    even, first, stride, base = (np.array(column)[:, None] for column in zip(*heads, strict=True))
    uneven = None
    if not even.all():
        each = zip(raw, heads, strict=True)
        uneven = np.stack([_even(head, rows) if head[0] else np.frombuffer(data, "<i8", rows) for data, head in each])
    since = np.ascontiguousarray(gaps.transpose(0, 2, 1)).view("<i4")[:, :, 0].cumsum(axis=1, dtype=np.int32)
    return StepIndexes(rows, first, stride, base, since, uneven)


def _even(head: tuple[bool, int, int, int], rows: int) -> NDArray[np.int64]:
    return head[1] + head[2] * np.arange(rows)


def unpack_step_index(data: bytes, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Steps and times in milliseconds of one block, both int64 [rows]."""
    return unpack_step_indexes([data], rows).all_of(0)


def pack_fine(buckets: Buckets, row: int, steps: NDArray[np.int64]) -> bytes:
    """Level-1 buckets of one series; `steps` [rows] are the block's."""
    places = [_places(buckets[field][row], steps) for field in _FINE_PLACES]
    odd = buckets["odd"][row]
    kind = np.where(np.isnan(odd), 0, np.where(odd > 0, 1, 2))
    count = (buckets["nonfinite"][row] + (kind << 5)).astype("u1")  # at most 16 fit into five bits
    values = [_planes(buckets[field][row]) for field in _FINE_VALUES]
    return _squeeze(b"".join([*values, *(place.tobytes() for place in places), count.tobytes()]))


def _places(chosen: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Offsets inside the bucket of the rows that have these steps; 255 for none."""
    at = np.searchsorted(steps, chosen) - np.arange(len(chosen)) * FAN
    return np.where(chosen == NEVER, _NONE, at).astype("u1")


def unpack_fine(packed: list[bytes], rows: int, indexes: StepIndexes) -> Buckets:
    """Level-1 buckets [series, buckets]. Equally many series belong to each step index, in their order."""
    n = -(-rows // FAN)
    raw = _stack(packed, 20 * n)
    width = len(packed) // len(indexes.base)
    index = np.repeat(np.arange(len(indexes.base)), width)[:, None]
    offset = np.arange(n) * FAN
    ends = np.minimum(offset + FAN, rows)
    out = Buckets((field, _value_plane(raw, at, n)) for at, field in enumerate(_FINE_VALUES))
    counts = raw[:, 19 * n :]
    out["nonfinite"] = (counts & 31).astype(np.int64)
    out["odd"] = _KINDS[counts >> 5]
    out["count"] = np.broadcast_to(ends - offset, (len(packed), n))
    whole = not out["nonfinite"].any()  # then every place is real, which spares half of the work
    for at, point in enumerate(("low", "high", "odd")):
        place = raw[:, n * (16 + at) : n * (17 + at)]
        if whole and point == "odd":
            out["odd_step"] = out["odd_ms"] = np.broadcast_to(np.int64(NEVER), place.shape)
            continue
        row = offset + place if whole else np.minimum(offset + place, rows - 1)
        steps, out[f"{point}_ms"] = indexes.at(index, row)
        out[f"{point}_step"] = steps if whole else np.where(place == _NONE, NEVER, steps)
    for point, edge in (("first", offset), ("last", ends - 1)):
        out[f"{point}_step"], out[f"{point}_ms"] = indexes.at(index, edge[None])
    return out


def fine_values(packed: list[bytes], rows: int, field: str) -> NDArray[np.float32]:
    """One value field of level-1 buckets alone, [series, buckets]: what a heat-map needs."""
    n = -(-rows // FAN)
    return _value_plane(_stack(packed, 20 * n), _FINE_VALUES.index(field), n)


def _value_plane(raw: NDArray[np.uint8], at: int, n: int) -> NDArray[np.float32]:
    planes = raw[:, 4 * n * at : 4 * n * (at + 1)].reshape(len(raw), 4, n)
    return np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<f4")[:, :, 0]


def _stack(packed: Sequence[bytes], size: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join([_inflate(data, size) for data in packed]), "u1").reshape(len(packed), size)


def pack_coarse(buckets: Buckets, row: int) -> bytes:
    """Buckets of level 2 or higher of one series, field by field."""
    return _squeeze(b"".join(_planes(buckets[field][row]) for field in FIELDS))


def unpack_coarse(packed: list[bytes], n: int) -> Buckets:
    """Buckets [series, n] of level 2 or higher."""
    raw = _stack(packed, _COARSE * n)
    out, start = Buckets(), 0
    for field, kind in FIELDS.items():
        size = np.dtype(kind).itemsize
        planes = raw[:, start : start + size * n].reshape(len(packed), size, n)
        out[field] = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(kind)[:, :, 0]
        start += size * n
    return out


def _planes(values: NDArray[Any]) -> bytes:
    """The bytes of an array, all first bytes, then all second bytes, and so on."""
    return np.ascontiguousarray(values).view("u1").reshape(len(values), -1).T.tobytes()


def _squeeze(data: bytes) -> bytes:
    packed: bytes = _LZ4.compress(data, asbytes=True)
    return packed


def _inflate(data: bytes, size: int) -> bytes:
    plain: bytes = _LZ4.decompress(data, decompressed_size=size, asbytes=True)
    return plain
