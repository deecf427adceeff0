"""Rows of per-step values kept on the device until a flush takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_BYTES = 16 * 2**20
Late = Callable[[], float]  # a number that the device knows by the time rows are taken


class Ring:
    """A preallocated [capacity, columns] buffer. Writing a row and taking rows only enqueue device work;
    one stream orders them, so a row may be overwritten as soon as it has been taken. `late` is a column whose numbers
    are asked for when rows have arrived."""

    def __init__(self, columns: int, device: torch.device, capacity: int = 1024, late: int | None = None) -> None:
        rows = max(1, min(capacity, MAX_BYTES // (4 * max(1, columns))))
        self.values = torch.zeros(rows, columns, dtype=torch.float32, device=device)
        self.steps: list[int] = []
        self.times: list[float] = []
        self._late, self._told = late, list[Late | None]()

    @property
    def full(self) -> bool:
        return len(self.steps) == len(self.values)

    def write(self, step: int, time: float, row: Tensor, late: Late | None = None) -> None:
        self.values[len(self.steps)].copy_(row)
        self.steps.append(step)
        self.times.append(time)
        self._told.append(late)

    def take(self) -> Taken:
        """Start copying all rows to the host and empty the ring."""
        count = len(self.steps)
        steps, times = np.array(self.steps, np.int64), np.array(self.times, np.float64)
        late = {} if self._late is None else {(row, self._late): each for row, each in enumerate(self._told) if each}
        self.steps, self.times, self._told = [], [], []
        if self.values.device.type != "cuda":
            return Taken(steps, times, self.values[:count].clone(), None, late)
        host = torch.empty(count, self.values.shape[1], pin_memory=True)
        host.copy_(self.values[:count], non_blocking=True)
        done = torch.cuda.Event()
        # That of the rows' own device: the current one may be another, and would be done at once.
        done.record(torch.cuda.current_stream(self.values.device))
        return Taken(steps, times, host, done, late)


@dataclass(frozen=True)
class Taken:
    """Rows on their way to the host."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    host: Tensor
    done: torch.cuda.Event | None
    late: dict[tuple[int, int], Late] = field(default_factory=dict)  # by row and column

    @property
    def arrived(self) -> bool:
        return self.done is None or self.done.query()

    def values(self) -> NDArray[np.float32]:
        """Waits for the copy, if it still has to."""
        if self.done is not None:
            self.done.synchronize()
        out: NDArray[np.float32] = self.host.numpy()
        for place, told in self.late.items():
            out[place] = told()
        return out
