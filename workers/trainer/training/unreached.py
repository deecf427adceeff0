"""Parameters that no loss reaches: read off the graph of one training pass before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from workers.protocol import Notice
from workers.trainer.adapt import evaluating
from workers.trainer.task import Task


def unreached(task: Task, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those of `parameters` without a path to the loss in the autograd graph of the first micro-batch. That is not a
    gradient of zero: a batch without boxes still has the path. Layers that are left out at random count as reached,
    since the model is asked in evaluation mode too. Costs one forward pass, two where something is unreached; random
    state, buffers and modes stay as they are."""
    with restored(task.model):
        left = dict(parameters)
        for training in (True, False):
            if left:
                task.model.train(training)
                reached = _leaves(task.losses(0)["total"])
                left = {name: each for name, each in left.items() if id(each) not in reached}
    return left


def unreached_notices(names: list[str]) -> list[Notice]:
    """What the start of a run says of them."""
    if not names:
        return []
    subject = "1 parameter has" if len(names) == 1 else f"{len(names)} parameters have"
    text = f"{subject} no path to the loss: the optimizer leaves them as they are, and their gradient norms are 0"
    return [Notice(kind="unreached", text=text, items=names)]


def _leaves(loss: Tensor) -> set[int]:
    """Identities of the leaves that the graph of `loss` ends in."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.add(id(leaf))
        waiting += [before for before, _ in node.next_functions]
    return found


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Puts random state, buffers and modes back, so that the first step is the one it would have been."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with evaluating.undisturbed():
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for buffer, value in buffers:
                buffer.detach().copy_(value)
