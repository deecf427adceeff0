"""Record a training loop of one's own: the same series, in a folder, as the standalone trainer writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.spec import Record as RecordSpec
from workers.protocol import Result, Started
from workers.trainer.adapt import attach
from workers.trainer.folder import FolderSink
from workers.trainer.gauges import Gauges, total_norm
from workers.trainer.recorder import Recorder
from workers.trainer.sites import describe

TRAIN = ("loss/total", "lr", "grad_norm/total")


class Record:
    """Call it with the loss when gradients are complete and nothing has clipped them yet; the optimizer's step
    then completes the row. Nothing here waits for the device."""

    def __init__(
        self, model: nn.Module, recorder: Recorder, optimizer: torch.optim.Optimizer, start_step: int = 0
    ) -> None:
        self.model, self.recorder, self.optimizer = model, recorder, optimizer
        self.gauges = Gauges(model, RecordSpec())
        self.step = start_step
        self._waiting: list[Tensor] | None = None
        device = next(model.parameters()).device
        recorder.open(start_step, [*TRAIN, *self.gauges.names], {}, device)
        self._hook = optimizer.register_step_post_hook(self._stepped)

    def __call__(self, loss: Tensor) -> None:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        lr = torch.full((), self.optimizer.param_groups[0]["lr"], device=loss.device)
        self._waiting = [loss.detach().float(), lr, total_norm(gradients)]
        self.gauges.before()

    def close(self) -> None:
        self._hook.remove()
        self.recorder.flush()
        self.recorder.say(Result(step=self.step))

    def _stepped(self, *_: object) -> None:
        if self._waiting is None:  # a step whose loss was not told leaves no row
            return
        self.recorder.train(self.step, torch.cat([torch.stack(self._waiting), self.gauges.after()]))
        self._waiting = None
        self.recorder.complete(self.step)
        self.step += 1


@contextmanager
def recording(
    model: nn.Module, folder: Path | str, optimizer: torch.optim.Optimizer, *, start_step: int = 0
) -> Iterator[Record]:
    """Find the model's attention, where nobody has yet, and write the series of every step to `folder`; what stands
    there already is written over. Raises ValueError where the model has no attention that is known."""
    if not describe(model):
        attach(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    recorder = Recorder(FolderSink(folder), lambda: time.monotonic() - began, fail_on_nan=False)
    count = sum(parameter.numel() for parameter in model.parameters())
    device = str(next(model.parameters()).device)
    recorder.say(Started(device=device, parameters=count, sites=describe(model)))
    record = Record(model, recorder, optimizer, start_step)
    try:
        yield record
    finally:
        record.close()
