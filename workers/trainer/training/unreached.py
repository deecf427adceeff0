"""Parameters without a path to the loss, from the autograd graph of one training pass before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from workers.protocol import Notice
from workers.trainer.adapt import evaluating
from workers.trainer.task import Task


def unreached(task: Task, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those of `parameters` without a path to the loss on the first micro-batch. A gradient of zero is a path. Layers
    dropped at random count as reached, since evaluation mode is tried too. Costs one forward pass, two where something
    is unreached; random state, buffers and modes stay as they are."""
    with restored(task.model):
        without_path = dict(parameters)
        for training in (True, False):
            if without_path:
                task.model.train(training)
                reached = _leaves(task.losses(0)["total"])
                without_path = {name: each for name, each in without_path.items() if id(each) not in reached}
    return without_path


def unreached_notices(names: list[str]) -> list[Notice]:
    """The notice of a run with unreached parameters."""
    if not names:
        return []
    subject = "1 parameter has" if len(names) == 1 else f"{len(names)} parameters have"
    text = f"{subject} no path to the loss: the optimizer leaves them as they are, and their gradient norms are 0"
    return [Notice(kind="unreached", text=text, items=names)]


def _leaves(loss: Tensor) -> set[int]:
    """Ids of the leaves of the graph of `loss`."""
    leaves: set[int] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(id(leaf))
        waiting += [before for before, _ in node.next_functions]
    return leaves


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restores random state, buffers and modes, so that the first step is unchanged."""
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
