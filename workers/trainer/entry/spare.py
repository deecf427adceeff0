"""The warm spare: a trainer that has imported everything and waits for its orders on standard input."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from io import FileIO
from pathlib import Path

import torch

from experiments.spec import parse_spec
from workers.protocol import PIPE_FD, Orders, Ready, Stop, StopReason, receive
from workers.trainer.entry.orders import carry_out
from workers.trainer.recording.recorder import Recorder
from workers.trainer.recording.sink import PipeSink
from workers.trainer.training.loop import Session

_TINY = {"d_model": 8, "heads": 1, "ffn": 8}


class StopListener:
    """Listens for `Stop` on a thread of its own while the main thread trains."""

    def __init__(self, stream: FileIO) -> None:
        self.why: StopReason | None = None
        self._stream = stream
        threading.Thread(target=self._listen, name="stop-listener", daemon=True).start()

    def _listen(self) -> None:
        for line in self._stream:
            if isinstance(told := receive(line), Stop):
                self.why = told.why


def serve() -> int:
    """Send `Ready`, carry out one order, leave. 0 also when the input closed before an order came."""
    warm_up()
    descriptor = int(os.environ[PIPE_FD])
    os.set_inheritable(descriptor, False)
    send = PipeSink(os.fdopen(descriptor, "wb"))
    send(Ready(pid=os.getpid(), torch=torch.__version__, capability=torch.backends.cpu.get_cpu_capability()))
    # Unbuffered: a thread that waits inside a buffered reader would abort the interpreter's exit.
    told = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115 (descriptor 0, never closed)
    line = told.readline()
    if not line:
        return 0
    orders = receive(line)
    assert isinstance(orders, Orders)
    # SIGUSR1 writes where every thread stands, even one that hangs in a library; the file stays open for that.
    stacks = (Path(orders.scratch) / "stacks.txt").open("w")
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    listener = StopListener(told)
    carry_out(orders, send, lambda: listener.why)
    send.close()
    return 0


def warm_up() -> None:
    """One step of each task at the smallest size: loads every lazy import and kernel. No CUDA is touched."""
    common = {"resources": {"device": "cpu"}, "optimizer": {"warmup_steps": 0}, "train": {"steps": 1, "batch_size": 2}}
    tasks = (
        {"task": "classify", "data": {"dataset": "digits"}},
        {"task": "segment", "data": {"dataset": "digit-scenes", "train_size": 8, "val_size": 8}},
    )
    for task in tasks:
        spec = parse_spec({**common, **task, "model": _TINY})
        session = Session(spec, Recorder(_nobody, lambda: 0.0), scratch=Path(os.devnull))
        session.backward(0)
        session.optimizer.step()


def _nobody(message: object, payload: bytes = b"") -> None:
    """Takes what a warm-up would say."""
