"""Training passes on deterministic kernels, where torch has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from experiments.spec import Train
from workers.protocol import Notice
from workers.trainer.task import Task
from workers.trainer.training.precision import Precision
from workers.trainer.training.unreached import restored


class Deterministic:
    """With `warn_only=True` the backward passes of fused attention on a GPU stay nondeterministic: flash,
    memory-efficient and cuDNN kernels sum in any order unless torch is told to raise. So training passes on a GPU run
    in raising mode, and evaluations and probes, which nothing is resumed from, in warning mode."""

    def __init__(self, train: Train, device: torch.device) -> None:
        self.strict = train.deterministic and device.type == "cuda"

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Around forward and backward passes of training."""
        if self.strict:
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            if self.strict:
                torch.use_deterministic_algorithms(True, warn_only=True)

    def notices(self, task: Task, parameters: Mapping[str, nn.Parameter], precision: Precision) -> list[Notice]:
        """Run the first micro-batch once. Where an operation has no deterministic kernel, training uses the other
        ones, and the notice names the operation. Gradients, random state, buffers and modes stay as they are."""
        if not self.strict:
            return []
        try:
            with restored(task.model), self.passes():
                with precision.cast():
                    loss = task.losses(0)["total"]
                torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
            self.strict = False
            return [_notice(str(error))]
        return []


def _notice(error: str) -> Notice:
    text = "a run of this model does not repeat itself bit for bit on this device, a resumed one neither: "
    return Notice(kind="not_deterministic", text=text + error.splitlines()[0].partition(", but you set")[0])
