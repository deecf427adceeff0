"""Looking at a model without a trace: what is read inside depends on the weights and the input alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module is in evaluation mode inside and in its own mode again outside: a module that is frozen in
    evaluation mode stays so. The flag is set directly, because a `train` or `eval` of the model's own may do more
    than that, such as merging an adapter into the weights. Random state comes out as it went in."""
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
    """Random state comes out as it went in, on every device: a model need not lie on the current one."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices)


def eager() -> AbstractContextManager[object]:
    """Compiled models run as they are written: their graphs call no hooks and show nobody what they compute."""
    compiling = "torch._dynamo" in sys.modules  # importing it takes seconds
    return torch.compiler.set_stance("force_eager") if compiling else nullcontext()
