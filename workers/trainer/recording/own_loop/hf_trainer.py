"""Record a Trainer of transformers: `with recording_trainer(trainer, folder): trainer.train()`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workers.trainer.adapt import attach
from workers.trainer.adapt.attachment import adapted_since
from workers.trainer.attention.sites import describe
from workers.trainer.recording.own_loop.grad_scale import unwrapped
from workers.trainer.recording.own_loop.guarded import Guarded
from workers.trainer.recording.own_loop.record import Record, recording


@contextmanager
def recording_trainer(trainer: Any, folder: Path | str) -> Iterator[None]:
    """Write a row to `folder` for every optimizer step of the trainer, under its own step number: the loss summed over
    micro-batches, and norms after accumulation, without loss scale, before clipping. Rows are taken when
    `training_step` returns, as the Trainer has no callback between the backward pass and clipping. Raises ValueError
    where no attention is recognised."""
    if not describe(trainer.model) or adapted_since(trainer.model):
        attach(trainer.model)
    own = trainer.__dict__.get("training_step")  # another wrapper may have replaced it
    plain = trainer.training_step
    with ExitStack() as stack:
        rows = _StepRows(trainer, Path(folder), stack)

        def training_step(*args: Any, **kwargs: Any) -> Any:
            loss = plain(*args, **kwargs)
            rows.add(loss)
            return loss

        trainer.training_step = training_step
        try:
            yield
        finally:
            if own is None:
                del trainer.training_step
            else:
                trainer.training_step = own


class _StepRows:
    def __init__(self, trainer: Any, folder: Path, stack: ExitStack) -> None:
        self.trainer, self.folder, self.stack = trainer, folder, stack
        self.guarded = Guarded(lambda text: None)
        self.record: Record | None = None
        self.loss: Tensor | float = 0.0

    def add(self, loss: Tensor) -> None:
        """Add a micro-batch; the last of a step writes a row."""
        with torch.no_grad():
            self.guarded("row", lambda: self._add(loss), None)

    def _add(self, micro_loss: Tensor) -> None:
        self.loss = self.loss + micro_loss.detach()
        if not self.trainer.accelerator.sync_gradients:
            return
        loss, self.loss = self.loss, 0.0
        self._opened()(loss, self.trainer.state.global_step)

    def _opened(self) -> Record:
        """The record, opened at the first step: the trainer makes its optimizer when it starts, and another when it
        restarts, as with a smaller batch after running out of memory."""
        inner = unwrapped(self.trainer.optimizer)
        if self.record is None or self.record.optimizer is not inner:
            self.stack.close()
            start = self.trainer.state.global_step
            self.record = self.stack.enter_context(recording(self.trainer.model, self.folder, inner, start_step=start))
        return self.record
