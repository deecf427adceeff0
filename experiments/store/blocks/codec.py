"""The stored form of a frame: one compressed blob a frame, decodable without its neighbours.

Layout (little-endian), after a 24-byte head (magic u16, version u8, flags u8, rows u32, series u32, the byte
counts of the three parts, u32 each): steps (int64 first + int64 stride where evenly spaced, else int64 [rows]),
times as float64 base plus uint32 milliseconds [rows], values as float32 [series, rows] (series-major: one
series is one contiguous slice, which is what reads take and what sealing cuts into blocks). Each part is
LZ4-compressed on its own, so a reader that needs only steps never inflates the matrix.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_HEAD = struct.Struct("<HBBIIIII")  # magic, version, flags, rows, series, bytes of steps, times, values
_MAGIC, _VERSION = 0xA77F, 1
_EVEN = 1
# Compression happens inside the write transaction: speed matters more than size; sealing packs better.
_LZ4 = pa.Codec("lz4_raw")


@dataclass(frozen=True)
class Table:
    """A decoded frame: `steps` int64 [rows], `times` float64 [rows] in seconds, `values` float32 [series, rows]."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]

    def between(self, first: int, last: int) -> Table:
        """The rows whose step lies in [first, last]."""
        low, high = np.searchsorted(self.steps, [first, last + 1])
        return Table(self.steps[low:high], self.times[low:high], self.values[:, low:high])


def join(tables: Sequence[Table], series: int = 0) -> Table:
    """Tables of the same columns, one after the other; none give an empty table of `series` columns."""
    if not tables:
        return Table(np.empty(0, np.int64), np.empty(0), np.empty((series, 0), np.float32))
    if len(tables) == 1:
        return tables[0]
    return Table(
        np.concatenate([table.steps for table in tables]),
        np.concatenate([table.times for table in tables]),
        np.concatenate([table.values for table in tables], axis=1),
    )


def encode(table: Table) -> bytes:
    """Pack a table; steps must rise strictly. Raises ValueError otherwise."""
    rows = len(table.steps)
    if rows == 0 or (rows > 1 and int(np.diff(table.steps).min()) <= 0):
        raise ValueError("the steps of a frame must rise strictly and there must be at least one")
    stride = int(table.steps[1] - table.steps[0]) if rows > 1 else 1
    even = bool(np.array_equal(table.steps, table.steps[0] + stride * np.arange(rows)))
    steps = np.array([table.steps[0], stride]) if even else table.steps
    base = float(table.times[0])
    millis = np.clip(np.rint((table.times - base) * 1000), 0, 2**32 - 1).astype("<u4")
    parts = [
        _squeeze(steps.astype("<i8").tobytes()),
        _squeeze(struct.pack("<d", base) + millis.tobytes()),
        _squeeze(np.ascontiguousarray(table.values, "<f4").tobytes()),
    ]
    head = _HEAD.pack(_MAGIC, _VERSION, _EVEN if even else 0, rows, len(table.values), *map(len, parts))
    return head + b"".join(parts)


def decode(data: bytes | memoryview) -> Table:
    """Unpack a whole table. Raises ValueError on bytes that are not a frame."""
    raw = bytes(data)
    if len(raw) < _HEAD.size:
        raise ValueError("too short for a frame")
    magic, version, flags, rows, series, n_steps, n_times, n_values = _HEAD.unpack_from(raw)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError("not a frame of a known version")
    at = _HEAD.size
    even = bool(flags & _EVEN)
    steps = np.frombuffer(_inflate(raw[at : at + n_steps], 8 * (2 if even else rows)), "<i8")
    if even:
        steps = steps[0] + steps[1] * np.arange(rows, dtype=np.int64)
    at += n_steps
    clock = _inflate(raw[at : at + n_times], 8 + 4 * rows)
    times = struct.unpack_from("<d", clock)[0] + np.frombuffer(clock, "<u4", offset=8) / 1000.0
    at += n_times
    values = np.frombuffer(_inflate(raw[at : at + n_values], 4 * rows * series), "<f4").reshape(series, rows)
    return Table(steps, times, values)


def _squeeze(data: bytes) -> bytes:
    packed: bytes = _LZ4.compress(data, asbytes=True)
    return packed


def _inflate(data: bytes, size: int) -> bytes:
    try:
        plain: bytes = _LZ4.decompress(data, decompressed_size=size, asbytes=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"a damaged frame: {error}") from None
    return plain
