"""Other forward passes for training steps: recomputed layers, which save memory, and a compiled model. Evaluations and
probes use the plain forward pass."""

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
    """`swapped` replaces the forward functions during a step's passes."""

    def __init__(self, spec: Train, model: nn.Module) -> None:
        self.swaps: list[tuple[nn.Module, Forward]] = []
        if spec.recompute:
            self.swaps += [(layer, partial(_recomputed, layer.forward)) for layer in layers(model)]
        if spec.compile:
            self.swaps.append((model, torch.compile(model.forward)))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        for module, forward in self.swaps:
            module.forward = forward  # hides the class's own
        try:
            yield
        finally:
            for module, _ in self.swaps:
                del module.forward


def layers(model: nn.Module) -> list[nn.Module]:
    """The modules that hold attention sites; a recomputing pass keeps only what passes between them."""
    return [module for module in model.modules() if any(isinstance(child, Attention) for child in module.children())]


def _recomputed(forward: Forward, *inputs: Any, **named: Any) -> Any:
    """Activations inside are dropped and computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174)."""
    return checkpoint(forward, *inputs, use_reentrant=False, **named)
