"""Rows of per-step values, kept on the device until a flush takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_BYTES = 16 * 2**20
Deferred = Callable[[], float]  # a number that is known when the rows have arrived


class Ring:
    """A preallocated [capacity, columns] buffer. Writing and taking rows only enqueue device work; one stream orders
    them, so a row may be overwritten as soon as it is taken. `deferred` is the column of Deferred numbers."""

    def __init__(self, columns: int, device: torch.device, capacity: int = 1024, deferred: int | None = None) -> None:
        rows = max(1, min(capacity, MAX_BYTES // (4 * max(1, columns))))
        self.values = torch.zeros(rows, columns, dtype=torch.float32, device=device)
        self.steps: list[int] = []
        self.times: list[float] = []
        self._column, self._deferred = deferred, list[Deferred | None]()

    @property
    def full(self) -> bool:
        return len(self.steps) == len(self.values)

    def write(self, step: int, time: float, row: Tensor, deferred: Deferred | None = None) -> None:
        self.values[len(self.steps)].copy_(row)
        self.steps.append(step)
        self.times.append(time)
        self._deferred.append(deferred)

    def take(self) -> Transfer:
        """Start copying all rows to the host and empty the ring."""
        count = len(self.steps)
        steps, times = np.array(self.steps, np.int64), np.array(self.times, np.float64)
        deferred = {row: number for row, number in enumerate(self._deferred) if number}
        self.steps, self.times, self._deferred = [], [], []
        if self.values.device.type != "cuda":
            return Transfer(steps, times, self.values[:count].clone(), None, self._column, deferred)
        host = torch.empty(count, self.values.shape[1], pin_memory=True)
        host.copy_(self.values[:count], non_blocking=True)
        done = torch.cuda.Event()
        # The stream of the rows' own device; the current device may be another.
        done.record(torch.cuda.current_stream(self.values.device))
        return Transfer(steps, times, host, done, self._column, deferred)


@dataclass(frozen=True)
class Transfer:
    """Rows on their way to the host."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    host: Tensor
    done: torch.cuda.Event | None
    column: int | None  # of the deferred numbers
    deferred: dict[int, Deferred]  # by row

    @property
    def arrived(self) -> bool:
        return self.done is None or self.done.query()

    def values(self) -> NDArray[np.float32]:
        """Waits for the copy where it has not arrived."""
        if self.done is not None:
            self.done.synchronize()
        out: NDArray[np.float32] = self.host.numpy()
        for row, number in self.deferred.items():
            out[row, self.column] = number()
        return out
