"""The spare trainer: it has imported everything and waits for orders on standard input."""

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
    """Listens for `Stop` in a thread while the main thread trains."""

    def __init__(self, stream: FileIO) -> None:
        self.why: StopReason | None = None
        self._stream = stream
        threading.Thread(target=self._listen, name="stop-listener", daemon=True).start()

    def _listen(self) -> None:
        for line in self._stream:
            if isinstance(message := receive(line), Stop):
                self.why = message.why


def serve() -> int:
    """Send `Ready`, carry out one order, exit. Also returns 0 where the input closes before an order."""
    warm_up()
    descriptor = int(os.environ[PIPE_FD])
    os.set_inheritable(descriptor, False)
    send = PipeSink(os.fdopen(descriptor, "wb"))
    send(Ready(pid=os.getpid(), torch=torch.__version__, capability=torch.backends.cpu.get_cpu_capability()))
    # Unbuffered: a thread inside a buffered reader would abort the interpreter's exit.
    orders_in = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115 (descriptor 0, never closed)
    line = orders_in.readline()
    if not line:
        return 0
    orders = receive(line)
    assert isinstance(orders, Orders)
    # SIGUSR1 writes the stack of every thread, even one that hangs in a library; the file stays open for it.
    stacks = (Path(orders.scratch) / "stacks.txt").open("w")
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    listener = StopListener(orders_in)
    carry_out(orders, send, lambda: listener.why)
    send.close()
    return 0


def warm_up() -> None:
    """Train a minimal model of two tasks for a step: loads lazy imports and kernels. CUDA is not used."""
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
    """Discards the messages of a warm-up."""
