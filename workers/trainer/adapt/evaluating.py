"""Evaluate a model and leave modes and random state unchanged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in evaluation mode; afterwards each has its own mode again, and random state is restored.
    The flag is set directly, because a model's own `train` or `eval` may do more, such as merging an adapter into the
    weights."""
    modes = [(module, module.training) for module in model.modules()]
    with undisturbed(), eager():
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def undisturbed() -> AbstractContextManager[None]:
    """Restore random state on every device: the model need not be on the current one."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices)


def eager() -> AbstractContextManager[object]:
    """Run compiled models eagerly: their graphs call no hooks and hide what they compute."""
    compiling = "torch._dynamo" in sys.modules  # importing it takes seconds
    return torch.compiler.set_stance("force_eager") if compiling else nullcontext()
