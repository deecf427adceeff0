"""Record what the Trainer of transformers trains: `with recording_trainer(trainer, folder): trainer.train()`."""

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
    """While the trainer trains, every optimizer step is a row in `folder`, under the trainer's own step number: the
    loss of all its micro-batches together, and norms after accumulation, without a loss scale, before clipping. No
    callback of the Trainer is called between the backward pass and clipping, so rows are taken where its
    `training_step` returns. Raises ValueError where the model has no attention that is known."""
    if not describe(trainer.model) or adapted_since(trainer.model):
        attach(trainer.model)
    own = trainer.__dict__.get("training_step")  # somebody else may have put theirs there
    plain = trainer.training_step
    with ExitStack() as stack:
        rows = _Rows(trainer, Path(folder), stack)

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


class _Rows:
    def __init__(self, trainer: Any, folder: Path, stack: ExitStack) -> None:
        self.trainer, self.folder, self.stack = trainer, folder, stack
        self.guarded = Guarded(lambda text: None)
        self.record: Record | None = None
        self.loss: Tensor | float = 0.0

    def add(self, loss: Tensor) -> None:
        """One micro-batch; the last of a step makes a row."""
        with torch.no_grad():
            self.guarded("row", lambda: self._add(loss), None)

    def _add(self, loss: Tensor) -> None:
        self.loss = self.loss + loss.detach()
        if not self.trainer.accelerator.sync_gradients:
            return
        told, self.loss = self.loss, 0.0
        self._opened()(told, self.trainer.state.global_step)

    def _opened(self) -> Record:
        """Opened at the first step: the trainer makes its optimizer when it begins, and another when it begins anew,
        as it does with a smaller batch after running out of memory."""
        inner = unwrapped(self.trainer.optimizer)
        if self.record is None or self.record.optimizer is not inner:
            self.stack.close()
            step = self.trainer.state.global_step
            made = recording(self.trainer.model, self.folder, inner, start_step=step)
            self.record = self.stack.enter_context(made)
        return self.record
