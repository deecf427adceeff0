"""A trainer's messages, read as its supervisor reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from experiments.spec import Spec
from workers.frames import decode
from workers.protocol import Flush, Message, Schema
from workers.trainer.recording.recorder import Recorder
from workers.trainer.training.loop import train

M = TypeVar("M", bound=Message)
Points = dict[str, dict[int, float]]  # by series, by step


class Received:
    """Takes messages with their payloads; `points` has every series of every group."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.points: Points = {}
        self._names: dict[str, list[str]] = {}

    def __call__(self, message: Message, payload: bytes = b"") -> None:
        self.messages.append(message)
        if isinstance(message, Schema):
            self._names[message.group] = message.names
        elif isinstance(message, Flush):
            self._take(message, payload)

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    def _take(self, flush: Flush, payload: bytes) -> None:
        start = 0
        for group in flush.groups:
            frame = decode(payload[start : start + group.size])
            start += group.size
            for column, name in enumerate(self._names[group.group]):
                values: NDArray[Any] = frame.values[:, column]
                self.points.setdefault(name, {}).update(zip(frame.steps.tolist(), values.tolist(), strict=True))


def trained(run: Spec, folder: Path, checkpoint: Path | None = None) -> Received:
    """Train in this process, from the start or from a checkpoint."""
    received = Received()
    train(run, Recorder(received, lambda: 0.0), lambda: None, scratch=folder, checkpoint=checkpoint)
    return received


def differences(first: Points, other: Points, since: int = 0) -> dict[str, float]:
    """The largest |a − b| ÷ max |a| of each series of a run, from a step on, if values are not equal to the bit.
    Times and the machine's load are left out."""
    largest: dict[str, float] = {}
    for name in sorted(first.keys() | other.keys()):
        if name.startswith(("time/", "system/")):
            continue
        mine, theirs = ({s: v for s, v in each.get(name, {}).items() if s >= since} for each in (first, other))
        if mine.keys() != theirs.keys():
            largest[name] = float("inf")
            continue
        a, b = (np.array([each[step] for step in sorted(mine)]) for each in (mine, theirs))
        if not np.array_equal(a, b, equal_nan=True):
            largest[name] = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12))
    return largest
