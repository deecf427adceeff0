"""The optimizer and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from experiments.spec import Optimizer as OptimizerSpec


def build_optimizer(spec: OptimizerSpec, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Weight decay pulls on weights of two dimensions or more, not on biases, norms and other vectors."""
    values = list(parameters.values())
    groups = [
        {"params": [value for value in values if value.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [value for value in values if value.ndim < 2], "weight_decay": 0.0},
    ]
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum)
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), fused=True)


def learning_rate(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Linear warm-up to the peak, then the spec's schedule."""
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    return spec.lr * SCHEDULES[spec.schedule](spec, step, steps)


def _cosine(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Half a cosine towards zero (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * _done(spec, step, steps)))


def _constant(_spec: OptimizerSpec, _step: int, _steps: int) -> float:
    return 1.0


def _linear(spec: OptimizerSpec, step: int, steps: int) -> float:
    """A straight line towards zero."""
    return 1.0 - _done(spec, step, steps)


def _inverse_sqrt(spec: OptimizerSpec, step: int, _steps: int) -> float:
    """√(warm-up steps ÷ steps done), as of Vaswani et al. 2017, arXiv:1706.03762."""
    return math.sqrt(max(1, spec.warmup_steps) / (step + 1))


def _step(spec: OptimizerSpec, step: int, _steps: int) -> float:
    """A factor every so many steps after the warm-up."""
    drops = (step - spec.warmup_steps) // spec.drop_every
    return float(spec.drop_factor**drops)


def _done(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Share of the steps after the warm-up that are behind."""
    return (step - spec.warmup_steps) / max(1, steps - spec.warmup_steps)


SCHEDULES: dict[str, Callable[[OptimizerSpec, int, int], float]] = {
    "cosine": _cosine,
    "constant": _constant,
    "linear": _linear,
    "inverse_sqrt": _inverse_sqrt,
    "step": _step,
}


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
