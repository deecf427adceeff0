"""The warm spare as a real process: ready, orders, stop, and a clean end in every case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from experiments.spec import resolved
from tests.lab.collected import tiny
from workers.protocol import (
    PARENT_PID,
    PIPE_FD,
    Checkpoint,
    Flush,
    Message,
    Orders,
    Ready,
    Result,
    Started,
    Stop,
    Stopped,
    read_message,
    send,
)


class Spare:
    """A trainer process and our ends of its pipes."""

    def __init__(self, parent: int) -> None:
        read_end, write_end = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers.trainer"],
            stdin=subprocess.PIPE,
            pass_fds=[write_end],
            env={**os.environ, PIPE_FD: str(write_end), PARENT_PID: str(parent)},
        )
        os.close(write_end)
        self.pipe: BinaryIO = os.fdopen(read_end, "rb")
        assert self.process.stdin is not None
        self.stdin: Any = self.process.stdin

    def next(self) -> Message | None:
        read = read_message(self.pipe)
        return read[0] if read else None

    def rest(self) -> list[Message]:
        return list(iter(self.next, None))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.pipe.close()


@pytest.fixture
def spare() -> Iterator[Spare]:
    spare = Spare(os.getpid())
    assert isinstance(spare.next(), Ready)
    yield spare
    spare.end()


def _orders(scratch: Path, **train: object) -> Orders:
    spec = tiny(train={"steps": 5, **train})
    return Orders(run=1, fence=1, spec=resolved(spec), scratch=str(scratch))


def test_a_spare_carries_out_one_order_and_leaves(spare: Spare, tmp_path: Path) -> None:
    send(spare.stdin, _orders(tmp_path))
    assert isinstance(spare.next(), Started)
    told = spare.rest()
    assert told[-1] == Result(step=5)
    assert [message.step for message in told if isinstance(message, Checkpoint)] == [3, 5]
    assert spare.process.wait(timeout=20) == 0


def test_a_stop_is_answered_with_a_checkpoint_of_the_last_complete_step(spare: Spare, tmp_path: Path) -> None:
    send(spare.stdin, _orders(tmp_path, steps=1_000_000, eval_every=1_000_000, checkpoint_every=1_000_000))
    while not isinstance(first := spare.next(), Flush):
        pass
    spare.process.send_signal(signal.SIGINT)  # Ctrl-C reaches the whole terminal and must not matter here
    send(spare.stdin, Stop(why="preempt"))
    told = [first, *spare.rest()]
    assert isinstance(told[-1], Stopped)
    assert told[-1].why == "preempt"
    saved = told[-2]
    assert isinstance(saved, Checkpoint)
    flushed = [message for message in told if isinstance(message, Flush)][-1]  # the first, if nothing came after it
    assert flushed.hi == saved.step == told[-1].step > 0
    assert spare.process.wait(timeout=20) == 0


def test_a_spare_leaves_when_its_input_closes(spare: Spare) -> None:
    spare.stdin.close()
    assert spare.rest() == []
    assert spare.process.wait(timeout=20) == 0


def test_a_trainer_whose_parent_is_already_gone_leaves_at_once() -> None:
    spare = Spare(parent=1)
    assert spare.next() is None
    assert spare.process.wait(timeout=20) != 0
    spare.end()
