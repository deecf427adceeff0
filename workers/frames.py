"""A frame as bytes: steps × series as one Arrow record batch. No Django, no torch.

The matrix is one FixedSizeList column; names are sent once, in `Schema`. A column per series would cost 138 bytes a
point at one step a frame, the matrix costs 8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """Consecutive recorded points of one group; `times` are seconds since the run started, `values` is [n, series].
    Every series of a group has a value at every step of the group, so NaN and Inf are recorded values, never gaps."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float32]


def encode(frame: Frame) -> bytes:
    """An Arrow IPC stream of one batch: step int64, time float64, values FixedSizeList<float32>."""
    width = frame.values.shape[1]
    values = pa.FixedSizeListArray.from_arrays(pa.array(frame.values.ravel(), pa.float32()), width)
    batch = pa.record_batch([pa.array(frame.steps), pa.array(frame.times), values], ["step", "time", "values"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes) -> Frame:
    """The inverse of `encode`; the arrays are views on `data` where possible."""
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all().combine_chunks()
    values = table["values"].combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0)
    width = values.type.list_size
    return Frame(
        steps=table["step"].to_numpy(),
        times=table["time"].to_numpy(),
        values=values.flatten().to_numpy(zero_copy_only=False).reshape(-1, width),
    )
