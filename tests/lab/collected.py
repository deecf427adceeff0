"""A sink that keeps everything a trainer says, and specs small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.spec import Spec, parse_spec
from workers.frames import decode
from workers.protocol import Flush, Message, Schema, StopReason
from workers.trainer.recording.recorder import Recorder
from workers.trainer.training.loop import Fork, Outcome, train

Points = dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]

TINY: dict[str, dict[str, Any]] = {
    "classify": {
        "task": "classify",
        "data": {"dataset": "digits"},
        "model": {"d_model": 16, "heads": 2, "ffn": 16, "layers": 2, "patch": 4},
    },
    "segment": {
        "task": "segment",
        "data": {"dataset": "digit-scenes", "train_size": 32, "val_size": 8},
        "model": {"d_model": 16, "heads": 2, "ffn": 16, "queries": 4, "encoder_layers": 1, "patch": 8},
    },
    **{
        task: {
            "task": task,
            "data": {"dataset": task, "val_size": 16, "test_size": 24},
            "model": {"d_model": 16, "heads": 2, "ffn": 16, "layers": 2},
        }
        for task in ("pointer", "roles")
    },
    "language": {
        "task": "language",
        "data": {"dataset": "text", "context": 16, "characters": 32},
        "model": {"d_model": 16, "heads": 2, "ffn": 16},
    },
}


def tiny(task: str = "classify", **changes: dict[str, Any]) -> Spec:
    """A spec that trains in a blink: `tiny("segment", train={"steps": 3})`."""
    raw: dict[str, Any] = {
        **TINY[task],
        "optimizer": {"warmup_steps": 1},
        "train": {"steps": 6, "batch_size": 4, "eval_every": 3, "checkpoint_every": 3, "predictions": 0},
        "record": {"probe_every": 2},
        "resources": {"threads": 1},
    }
    for section, values in changes.items():
        raw[section] = {**raw.get(section, {}), **values}
    return parse_spec(raw)


class Collected:
    """Takes messages and decodes frames; `series` gives each group's points by name."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._names: dict[str, list[str]] = {}
        self._steps: dict[str, list[NDArray[np.int64]]] = {}
        self._values: dict[str, list[NDArray[np.float32]]] = {}

    def __call__(self, message: Message, payload: bytes = b"") -> None:
        self.messages.append(message)
        if isinstance(message, Schema):
            self._names[message.group] = message.names
        if isinstance(message, Flush):
            self._take(message, payload)

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    def series(self, group: str = "train") -> Points:
        steps = np.concatenate(self._steps.get(group, [np.zeros(0, np.int64)]))
        values = np.concatenate(self._values.get(group, [np.zeros((0, len(self._names[group])), np.float32)]))
        return {name: (steps, values[:, column]) for column, name in enumerate(self._names[group])}

    def values(self, name: str, group: str = "train") -> NDArray[np.float32]:
        return self.series(group)[name][1]

    def _take(self, flush: Flush, payload: bytes) -> None:
        start = 0
        for group in flush.groups:
            frame = decode(payload[start : start + group.size])
            start += group.size
            assert len(frame.steps) == group.rows
            assert ((frame.steps >= flush.lo) & (frame.steps < flush.hi)).all()
            self._steps.setdefault(group.group, []).append(frame.steps)
            self._values.setdefault(group.group, []).append(frame.values)
        assert start == len(payload)


def train_collected(
    spec: Spec,
    scratch: Path,
    *,
    stop_after: int | None = None,
    checkpoint: Path | None = None,
    fork: Fork | None = None,
) -> tuple[Collected, Outcome]:
    """Train with everything kept; `stop_after` asks for an end after that many steps."""
    sink = Collected()
    recorder = Recorder(sink, lambda: 0.0, fail_on_nan=spec.train.on_nan == "fail")

    def should_stop() -> StopReason | None:
        return "preempt" if stop_after is not None and recorder.hi >= stop_after else None

    return sink, train(spec, recorder, should_stop, scratch=scratch, checkpoint=checkpoint, fork=fork)
