"""The stored form of sealed pieces. Bytes of equal weight stand together, then zstd: noise in the low bytes of a
float does not hide the order in the high ones.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .buckets import BUCKET, FAN, NEVER, Buckets

_ZSTD = pa.Codec("zstd", compression_level=1)
# Level 1, per bucket of 16 rows: four values, where the extremes and the first non-finite point stand, how many
# are not finite. The steps and times of those places are the clock's.
_FINE_VALUES = ("first", "low", "high", "last")
_FINE_PLACES = ("low_step", "high_step", "odd_step")
_NONE = 255
_KINDS = np.array([np.nan, np.inf, -np.inf], np.float32)  # of the first non-finite point, beside the count


def pack_values(values: NDArray[np.float32]) -> bytes:
    """Exact values [rows] of one series."""
    return _squeeze(_planes(values))


def unpack_values(data: bytes, rows: int) -> NDArray[np.float32]:
    return _from_planes(_inflate(data, 4 * rows), rows)


def pack_clock(steps: NDArray[np.int64], times: NDArray[np.float64]) -> bytes:
    """Steps and times [rows] of a block: even steps as first and stride, times as differences in milliseconds."""
    stride = int(steps[1] - steps[0]) if len(steps) > 1 else 1
    even = bool((np.diff(steps) == stride).all())
    millis = np.rint(times * 1000).astype(np.int64)
    head = struct.pack("<?qqq", even, steps[0], stride, millis[0])
    gaps = np.diff(millis, prepend=millis[0]).astype("<i4")
    return head + _squeeze((b"" if even else steps.astype("<i8").tobytes()) + _planes(gaps))


def unpack_clock(data: bytes, rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps int64 and times float64, [rows]."""
    even, first, stride, base = struct.unpack_from("<?qqq", data)
    raw = _inflate(data[25:], (4 if even else 12) * rows)
    steps = first + stride * np.arange(rows) if even else np.frombuffer(raw, "<i8", rows)
    gaps = np.frombuffer(raw, "u1", 4 * rows, 0 if even else 8 * rows).reshape(4, rows)
    millis = np.ascontiguousarray(gaps.T).view("<i4")[:, 0].cumsum(dtype=np.int64) + base
    return steps, millis / 1000.0


def pack_fine(buckets: NDArray[Any], steps: NDArray[np.int64]) -> bytes:
    """Level-1 buckets [buckets] of one series; `steps` [rows] are the block's."""
    places = [_places(buckets[field], steps) for field in _FINE_PLACES]
    kind = np.where(np.isnan(buckets["odd"]), 0, np.where(buckets["odd"] > 0, 1, 2))
    count = (buckets["nonfinite"] + (kind << 5)).astype("u1")  # at most 16 fit into five bits
    values = [_planes(buckets[field]) for field in _FINE_VALUES]
    return _squeeze(b"".join([*values, *(place.tobytes() for place in places), count.tobytes()]))


def _places(chosen: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Offsets inside the bucket of the rows that have these steps; 255 for none."""
    at = np.searchsorted(steps, chosen) - np.arange(len(chosen)) * FAN
    return np.where(chosen == NEVER, _NONE, at).astype("u1")


def unpack_fine(
    packed: list[bytes], rows: int, steps: NDArray[np.int64], times: NDArray[np.float64], owner: NDArray[np.intp]
) -> Buckets:
    """Level-1 buckets [series, buckets]. `steps` and `times` are [clocks, rows]; `owner` [series] picks the clock."""
    n = -(-rows // FAN)
    raw = _stack(packed, 20 * n)
    out = np.empty((len(packed), n), BUCKET)
    offset = np.arange(n) * FAN
    ends = np.minimum(offset + FAN, rows)
    for at, field in enumerate(_FINE_VALUES):
        out[field] = _value_plane(raw, at, n)
    for at, field in enumerate(_FINE_PLACES):
        place = raw[:, n * (16 + at) : n * (17 + at)]
        where = np.minimum(offset + place, rows - 1)
        out[field] = np.where(place == _NONE, NEVER, steps[owner[:, None], where])
        out[field.replace("_step", "_time")] = times[owner[:, None], where]
    out["nonfinite"] = raw[:, 19 * n :] & 31
    out["odd"] = _KINDS[raw[:, 19 * n :] >> 5]
    out["count"] = ends - offset
    out["first_step"], out["last_step"] = steps[owner[:, None], offset], steps[owner[:, None], ends - 1]
    out["first_time"], out["last_time"] = times[owner[:, None], offset], times[owner[:, None], ends - 1]
    return out


def fine_values(packed: list[bytes], rows: int, field: str) -> NDArray[np.float32]:
    """One value field of level-1 buckets alone, [series, buckets]: what a heat-map needs."""
    n = -(-rows // FAN)
    return _value_plane(_stack(packed, 20 * n), _FINE_VALUES.index(field), n)


def _value_plane(raw: NDArray[np.uint8], at: int, n: int) -> NDArray[np.float32]:
    planes = raw[:, 4 * n * at : 4 * n * (at + 1)].reshape(len(raw), 4, n)
    return np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<f4")[:, :, 0]


def _stack(packed: list[bytes], size: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join([_inflate(data, size) for data in packed]), "u1").reshape(len(packed), size)


def pack_coarse(buckets: NDArray[Any]) -> bytes:
    """Buckets [buckets] of level 2 or higher of one series, field by field."""
    fields = BUCKET.names or ()
    return _squeeze(b"".join(_planes(buckets[field]) for field in fields))


def unpack_coarse(packed: list[bytes], n: int) -> Buckets:
    """Buckets [series, n] of level 2 or higher."""
    raw = _stack(packed, BUCKET.itemsize * n)
    out = np.empty((len(packed), n), BUCKET)
    start = 0
    for field in BUCKET.names or ():
        kind = BUCKET[field]
        planes = raw[:, start : start + kind.itemsize * n].reshape(len(packed), kind.itemsize, n)
        out[field] = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(kind)[:, :, 0]
        start += kind.itemsize * n
    return out


def _planes(values: NDArray[Any]) -> bytes:
    """The bytes of an array, all first bytes, then all second bytes, and so on."""
    return np.ascontiguousarray(values).view("u1").reshape(len(values), -1).T.tobytes()


def _from_planes(raw: bytes, rows: int) -> NDArray[np.float32]:
    planes = np.frombuffer(raw, "u1").reshape(4, rows)
    return np.ascontiguousarray(planes.T).view("<f4")[:, 0]


def _squeeze(data: bytes) -> bytes:
    packed: bytes = _ZSTD.compress(data, asbytes=True)
    return packed


def _inflate(data: bytes, size: int) -> bytes:
    plain: bytes = _ZSTD.decompress(data, decompressed_size=size, asbytes=True)
    return plain
