"""Collects the points of every group and sends them about once a second as one flush.

`train` is kept in a ring on the device (ring.py); `eval`, `probe` and `system` are a few numbers on the host. Only a
forced flush waits for the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from workers.frames import Frame, encode
from workers.protocol import Flush, GroupFrame, Log, Schema
from workers.trainer.recording.ring import Deferred, Ring, Transfer
from workers.trainer.recording.sink import Send
from workers.trainer.recording.system import SystemMeter

FLUSH_S = 1.0
TRAIN = "train"
STEP_MS = "time/step_ms"


@dataclass
class GroupPoints:
    """Host-side points of one group."""

    names: Sequence[str]
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)

    def frame(self) -> Frame:
        matrix = np.array(self.values, np.float32).reshape(len(self.steps), len(self.names))
        return Frame(np.array(self.steps, np.int64), np.array(self.times, np.float64), matrix)


@dataclass(frozen=True)
class Pending:
    """A flush whose train rows may not have arrived from the device yet."""

    lo: int
    hi: int
    transfer: Transfer | None
    groups: dict[str, GroupPoints]


class NonFinite(FloatingPointError):
    """A value is NaN or infinite, which ends a run with on_nan: fail."""

    def __init__(self, step: int, name: str = "loss/total") -> None:
        super().__init__(f"{name} is not finite at step {step}")
        self.step = step


class Recorder:
    """`send` takes protocol messages; `elapsed` returns the seconds since the run started."""

    def __init__(self, send: Send, elapsed: Callable[[], float], *, fail_on_nan: bool = True) -> None:
        self.send, self.elapsed, self.fail_on_nan = send, elapsed, fail_on_nan
        self.rows: dict[str, GroupPoints] = {}
        self.ring: Ring | None = None
        self.finite: list[tuple[int, str]] = []  # columns of `train` that must be finite, with names
        self.system = SystemMeter(torch.device("cpu"))
        self.lo = self.hi = 0
        self._pending: Pending | None = None
        self._flushed = time.monotonic()

    def open(
        self,
        start_step: int,
        train: Sequence[str],
        groups: Mapping[str, Sequence[str]],
        device: torch.device,
        finite: Sequence[str] = (),
    ) -> None:
        """Declare the series of every group, and those of `train` that must be finite."""
        self.lo = self.hi = start_step
        self.finite = [(train.index(name), name) for name in finite]
        self.ring = Ring(len(train), device, deferred=train.index(STEP_MS) if STEP_MS in train else None)
        self.system = SystemMeter(device)
        self.send(Schema(group=TRAIN, names=list(train)))
        for group, names in {**groups, "system": self.system.names}.items():
            if names:
                self.rows[group] = GroupPoints(list(names))
                self.send(Schema(group=group, names=list(names)))

    def train(self, step: int, row: Tensor, step_ms: Deferred | None = None) -> None:
        """All values of one step, in the order of the names given to `open`. `step_ms` is called when the row has
        arrived from the device, and replaces the row's own value."""
        assert self.ring is not None
        self.ring.write(step, self.elapsed(), row, step_ms)

    def add(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """One point of every series of a host-side group."""
        rows = self.rows[group]
        rows.steps.append(step)
        rows.times.append(self.elapsed())
        rows.values.append([float(values[name]) for name in rows.names])

    def log(self, text: str) -> None:
        self.send(Log(text=text))

    def complete(self, step: int) -> None:
        """Mark a step and everything recorded in it as complete; flushes when a second has passed."""
        assert self.ring is not None
        self.hi = step + 1
        if self._pending is not None and (self._pending.transfer is None or self._pending.transfer.arrived):
            self._send()
        if self.ring.full or time.monotonic() - self._flushed >= FLUSH_S:
            self._begin()

    def flush(self) -> None:
        """Send everything up to the last complete step; waits for the device."""
        self._begin()
        self._send()

    def _begin(self) -> None:
        self._send()
        assert self.ring is not None
        if self.hi == self.lo:
            return
        self._flushed = time.monotonic()
        self.add("system", self.hi - 1, self.system.read())
        transfer = self.ring.take() if self.ring.steps else None
        self._pending = Pending(self.lo, self.hi, transfer, self.rows)
        self.rows = {group: GroupPoints(rows.names) for group, rows in self.rows.items()}
        self.lo = self.hi
        if transfer is None or transfer.done is None:
            self._send()

    def _send(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        frames = {group: rows.frame() for group, rows in pending.groups.items() if rows.steps}
        if (transfer := pending.transfer) is not None:
            frames[TRAIN] = Frame(transfer.steps, transfer.times, transfer.values())
        error = self._first_non_finite(frames.get(TRAIN))
        hi = pending.hi if error is None else error.step + 1
        self._write(pending.lo, hi, {group: _until(frame, hi) for group, frame in frames.items()})
        if error is not None:
            raise error

    def _first_non_finite(self, frame: Frame | None) -> NonFinite | None:
        if frame is None or not self.fail_on_nan:
            return None
        errors = [
            NonFinite(int(frame.steps[non_finite.argmax()]), name)
            for column, name in self.finite
            if (non_finite := ~np.isfinite(frame.values[:, column])).any()
        ]
        return min(errors, key=lambda error: error.step, default=None)

    def _write(self, lo: int, hi: int, frames: Mapping[str, Frame]) -> None:
        encoded = {group: (len(frame.steps), encode(frame)) for group, frame in frames.items() if len(frame.steps)}
        groups = [GroupFrame(group=group, rows=rows, size=len(data)) for group, (rows, data) in encoded.items()]
        self.send(Flush(lo=lo, hi=hi, groups=groups), b"".join(data for _, data in encoded.values()))


def _until(frame: Frame, hi: int) -> Frame:
    """The points before step `hi`: all of them unless a value was not finite."""
    keep = frame.steps < hi
    return Frame(frame.steps[keep], frame.times[keep], frame.values[keep])
