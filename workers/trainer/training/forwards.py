"""Other ways through a model in training steps: layers computed twice to save memory, a compiled forward pass.
Evaluations and probes go the plain way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from experiments.spec import Train
from workers.trainer.attention import Attention

Forward = Callable[..., Any]


class Forwards:
    """`taken` swaps the forward functions in for the time of a step's passes."""

    def __init__(self, spec: Train, model: nn.Module) -> None:
        self.swaps: list[tuple[nn.Module, Forward]] = []
        if spec.recompute:
            self.swaps += [(layer, partial(_recomputed, layer.forward)) for layer in layers(model)]
        if spec.compile:
            self.swaps.append((model, torch.compile(model.forward)))

    @contextmanager
    def taken(self) -> Iterator[None]:
        for module, forward in self.swaps:
            module.forward = forward  # hides the class's own
        try:
            yield
        finally:
            for module, _ in self.swaps:
                del module.forward


def layers(model: nn.Module) -> list[nn.Module]:
    """The modules that hold attention sites: what is kept between them is all that a recomputing pass keeps."""
    return [module for module in model.modules() if any(isinstance(child, Attention) for child in module.children())]


def _recomputed(forward: Forward, *inputs: Any, **named: Any) -> Any:
    """Activations inside are dropped and computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174)."""
    return checkpoint(forward, *inputs, use_reentrant=False, **named)
